"""Launches of the forward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from anynorm.kernels.triton import bits, forward
from anynorm.kernels.triton.call import Call
from anynorm.kernels.triton.operand import Operand
from anynorm.kernels.triton.scale import Scale
from anynorm.kernels.triton.tiles import Tile, oriented, power, resident, splits, streaming

__all__ = ["moments", "normalize", "standardize"]

_MOST = 1 << 16  # values of a set that a program keeps in registers
_PER_THREAD = 16


def standardize(call: Call, kept: Tensor | None, scale: Scale, phi: str) -> bool:
    """Write y, μ, s² and the bits; say whether there are kernels for that."""
    tile = resident(call.axes, _MOST, _PER_THREAD, call.units)
    if tile is not None:
        _whole(call, tile, kept, scale, phi)
    elif scale.power == "largest":
        return False
    else:
        call = _turned(call)
        tile = streaming(call.axes)
        _normalize(call, tile, kept, scale, phi, _leave(call, tile, scale))
    return True


def normalize(call: Call, kept: Tensor | None, eps: float, phi: str) -> None:
    """Write y and the bits, for the statistics that are there."""
    call = _turned(call)
    _normalize(call, streaming(call.axes), kept, Scale.given(eps), phi, _Left())


def _turned(call: Call) -> Call:
    axes = oriented(call.axes)
    return call if axes is None else call.seen(axes)


def _whole(call: Call, tile: Tile, kept: Tensor | None, scale: Scale, phi: str) -> None:
    lane = bits.axis(call.axes, tile, call.index("y"))
    forward.whole[(call.axes.p.size * tile.blocks(call.axes),)](
        *call.operands("x", "residual", "weight", "bias", "y", "mean", "square"),
        _mask(call, lane, kept),
        call.sizes,
        scale.factor,
        scale.eps,
        CENTER=scale.center,
        ABOUT=scale.about,
        POWER=scale.power,
        PHI=phi,
        AXIS=lane,
        **tile.options(call.wide),
    )
    _finish(call, lane, kept)


def moments(call: Call, scale: Scale) -> bool:
    """Write μ and s² alone; say whether there are kernels for that."""
    if scale.power == "largest":
        return False
    call = _turned(call)
    tile = streaming(call.axes)
    left = _leave(call, tile, scale)
    forward.conclude[(call.axes.p.size * tile.blocks(call.axes),)](
        *call.operands("x", "mean", "square"),
        *left.tensors,
        call.sizes,
        left.parts,
        call.axes.sets,
        scale.factor,
        **left.options(scale),
        BB=tile.b,
        WIDE=call.wide,
    )
    return True


class _Left(NamedTuple):
    """What is left of the statistics by programs that each have a part of A."""

    partial: Tensor | None = None
    magnitudes: Tensor | None = None
    parts: int = 1

    @property
    def tensors(self) -> tuple[Tensor | None, Tensor | None]:
        return self.partial, self.magnitudes

    def options(self, scale: Scale) -> dict[str, int | bool]:
        return {"CENTER": scale.center, "ABOUT": scale.about, "SPLITS": power(self.parts)}


def _leave(call: Call, tile: Tile, scale: Scale) -> _Left:
    parts, sets = splits(call.axes, tile, call.units), call.axes.sets
    grid = (parts * call.axes.p.size * tile.blocks(call.axes),)
    x, options = call.operand("x"), tile.options(call.wide)
    partial = call.x.new_empty((3, parts, sets), dtype=torch.float32)
    forward.moments[grid](
        x,
        partial,
        call.sizes,
        parts,
        sets,
        SHIFT=scale.center,
        TAILS=tile.tails(call.axes),
        **options,
    )
    left = _Left(partial, None, parts)
    if scale.power == "absolute":
        left = left._replace(magnitudes=partial.new_empty((parts, sets)))
        forward.spread[grid](
            x, *left.tensors, call.sizes, parts, sets, **left.options(scale), **options
        )
    return left


def _normalize(
    call: Call, tile: Tile, kept: Tensor | None, scale: Scale, phi: str, left: _Left
) -> None:
    axes = call.axes
    lane = bits.axis(axes, tile, call.index("y"))
    forward.normalize[(axes.p.size * tile.blocks(axes) * tile.rows(axes),)](
        *call.operands("x", "residual", "weight", "bias", "y", "mean", "square"),
        _mask(call, lane, kept),
        *left.tensors,
        call.sizes,
        left.parts,
        axes.sets,
        scale.factor,
        scale.eps,
        PHI=phi,
        AXIS=lane,
        **left.options(scale),
        **tile.options(call.wide),
    )
    _finish(call, lane, kept)


def _mask(call: Call, lane: int | None, kept: Tensor | None) -> Operand | None:
    """The bits as the kernel that has the values writes them; None where it cannot."""
    return None if kept is None or lane is None else call.operand("y", kept)


def _finish(call: Call, lane: int | None, kept: Tensor | None) -> None:
    """Write the bits where bytes do not lie inside tiles."""
    if kept is not None and lane is None:
        y: Any = call.tensors["y"]
        bits.fill(kept, y)
