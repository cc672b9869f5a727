"""Launches of the backward."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from anynorm.kernels.triton import backward as kernels
from anynorm.kernels.triton.call import Call
from anynorm.kernels.triton.operand import Operand
from anynorm.kernels.triton.scale import Scale
from anynorm.kernels.triton.tiles import (
    Tile,
    columns,
    oriented,
    power,
    resident,
    splits,
    streaming,
)

__all__ = ["backward"]

Two = tuple[Tensor, Tensor]

_MOST = 1 << 14  # values of a set that a program keeps in registers, beside as many of dy
_PER_THREAD = 32


def backward(call: Call, kept: Tensor | None, scale: Scale, phi: str) -> Two | None:
    """Write dx and dresidual; return the gradients of γ and β, None without a kernel for it."""
    tile = None if scale.constant else resident(call.axes, _MOST, _PER_THREAD, call.units)
    if tile is not None:
        return _whole(call, tile, kept, scale, phi)
    axes = None if scale.power == "largest" else oriented(call.axes, call.affine)
    if axes is None:
        return None
    call = call.seen(axes)
    return _in_parts(call, streaming(axes), kept, scale, phi)


def _whole(call: Call, tile: Tile, kept: Tensor | None, scale: Scale, phi: str) -> Two:
    width = _columns(call, tile, 1)
    weight, bias = (_Part.of(call, name, 1, width) for name in ("weight", "bias"))
    kernels.whole[(call.axes.p.size * width,)](
        *_operands(call, kept),
        weight.operand,
        bias.operand,
        call.sizes,
        width,
        call.numel,
        scale.factor,
        scale.eps,
        CENTER=scale.center,
        ABOUT=scale.about,
        POWER=scale.power,
        PHI=phi,
        **tile.options(call.wide),
    )
    return weight.summed(call), bias.summed(call)


def _in_parts(call: Call, tile: Tile, kept: Tensor | None, scale: Scale, phi: str) -> Two:
    """Sums first, unless statistics are constants, then dx."""
    axes, inside = call.axes, call.differs_inside
    sums, parts = (None, 1) if scale.constant else _sums(call, tile, kept, scale, phi)
    own = inside or sums is None
    rows = tile.rows(axes) if own else 1
    width = _columns(call, tile, tile.rows(axes))
    weight, bias = (_Part.of(call, name, rows, width) for name in ("weight", "bias"))
    kernels.apply[(axes.p.size * width * tile.rows(axes),)](
        *_operands(call, kept),
        weight.operand,
        bias.operand,
        sums,
        call.sizes,
        parts,
        axes.sets,
        width,
        call.numel,
        scale.factor,
        scale.eps,
        CENTER=scale.center,
        ABOUT=scale.about,
        INSIDE=inside,
        POWER=scale.power,
        PHI=phi,
        SPLITS=power(parts),
        **tile.options(call.wide),
    )
    return weight.summed(call), bias.summed(call)


def _sums(
    call: Call, tile: Tile, kept: Tensor | None, scale: Scale, phi: str
) -> tuple[Tensor, int]:
    """What :func:`anynorm.kernels.triton.backward.reduce` leaves, and in how many parts."""
    axes = call.axes
    parts = splits(axes, tile, call.units)
    fields = 3 if scale.power == "absolute" else 2
    sums = call.x.new_empty((fields, parts, axes.sets), dtype=torch.float32)
    kernels.reduce[(parts * axes.p.size * tile.blocks(axes),)](
        *_operands(call, kept)[:-2],
        sums,
        call.sizes,
        parts,
        axes.sets,
        scale.eps,
        INSIDE=call.differs_inside,
        POWER=scale.power,
        PHI=phi,
        **tile.options(call.wide),
    )
    return sums, parts


def _operands(call: Call, kept: Tensor | None) -> list[Operand | None]:
    bits = None if kept is None else call.operand("dx", kept)
    names = ("mean", "square", "weight", "bias", "dx", "dresidual")
    return [*call.operands("dy", "x", "residual"), bits, *call.operands(*names)]


def _columns(call: Call, tile: Tile, others: int) -> int:
    """By how many programs B is walked: by few where they add up γ's gradient over it."""
    blocks = tile.blocks(call.axes)
    if call.affine is None or call.axes.b.strides[call.affine] is not None:
        return blocks
    return columns(call.axes, tile, call.axes.p.size * others, call.units)


class _Part(NamedTuple):
    """Rows of which the sum is the gradient of γ or β."""

    name: str
    operand: Operand | None
    rows: Tensor | None

    @classmethod
    def of(cls, call: Call, name: str, rows: int, width: int) -> _Part:
        parameter = call.tensors[name]
        if parameter is None:
            return cls(name, None, None)
        p, a, b, _ = call.axes.steps(call.index(name))
        count = (call.axes.p.size if p is None else 1) * (rows if a is None else 1)
        count *= width if b is None else 1
        found = call.x.new_empty((count, parameter.numel()), dtype=torch.float32)
        return cls(name, call.operand(name, found), found)

    def summed(self, call: Call) -> Tensor:
        """Return the gradient, empty where there is no parameter."""
        parameter = call.tensors[self.name]
        if self.rows is None or parameter is None:
            return call.x.new_empty(0)
        whole = self.rows[0] if len(self.rows) == 1 else self.rows.sum(0)
        return whole.view(parameter.shape).to(parameter.dtype)
