"""Plans of the forward pass, from forms to launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from anynorm.activations import activation
from anynorm.kernels.triton import bits, forward
from anynorm.kernels.triton.call import Forms, KernelCall, call, x_of
from anynorm.kernels.triton.form import Form
from anynorm.kernels.triton.launch_plan import LaunchPlan, Slot
from anynorm.kernels.triton.operand import Operand
from anynorm.kernels.triton.scale import Scale
from anynorm.kernels.triton.tiles import (
    Tile,
    merging,
    oriented,
    power_of_two,
    resident,
    splits,
    streaming,
)

__all__ = ["moments", "normalize", "reduced", "standardize"]

_MOST = 1 << 16  # most values of a set that a program keeps in registers
_PER_THREAD = 16


def standardize(forms: Forms, dims: Sequence[int], *rest: Any) -> LaunchPlan | None:
    """Plan y, mean, square and sign_mask."""
    *statistic, phi = rest
    scale = Scale.of(dims, *statistic)
    found = call(dims, {**forms, "y": x_of(forms).dense(), **_statistics(forms, dims)})
    if scale is None or found is None:
        return None
    plan = found.plan(("y", "mean", "square"))
    return plan if _Forward.of(plan, found, scale, phi).add() else None


def normalize(forms: Forms, eps: float, phi: str) -> LaunchPlan | None:
    """Plan y and sign_mask, with given statistics."""
    found = call(reduced(forms), {**forms, "y": x_of(forms).dense()})
    if found is None:
        return None
    plan = found.plan(("y",))
    return plan if _Forward.of(plan, found, Scale.given(eps), phi).add() else None


def moments(forms: Forms, dims: Sequence[int], *rest: Any) -> LaunchPlan | None:
    """Plan only mean and square."""
    statistic: tuple[Any, ...] = (*rest, 0.0)
    scale = Scale.of(dims, *statistic)
    found = call(dims, {**forms, **_statistics(forms, dims)})
    if scale is None or scale.power == "largest" or found is None:
        return None
    plan = found.plan(("mean", "square"))
    turned = _Forward(plan, found, scale, "identity").turned()
    turned.add_moments(streaming(turned.call.axes))
    return plan


def reduced(forms: Forms) -> list[int]:
    """The dims over which the given statistics are reduced."""
    mean = forms["mean"]
    assert mean is not None
    pairs = enumerate(zip(x_of(forms).shape, mean.shape, strict=True))
    return [dim for dim, (size, own) in pairs if own == 1 and size > 1]


def _statistics(forms: Forms, dims: Sequence[int]) -> dict[str, Form]:
    x = x_of(forms)
    shape = [1 if axis in dims else size for axis, size in enumerate(x.shape)]
    return dict.fromkeys(("mean", "square"), x.like(shape, torch.float64))


@dataclass(frozen=True)
class _Forward:
    """The common arguments of the launches."""

    plan: LaunchPlan
    call: KernelCall
    scale: Scale
    phi: str

    @classmethod
    def of(cls, plan: LaunchPlan, found: KernelCall, scale: Scale, phi: str) -> _Forward:
        wanted = found.forms["residual"] is not None and activation(phi).by_sign
        plan.buffers["sign_mask"] = bits.form(found.x, wanted)
        return cls(plan, found, scale, phi)

    def add(self) -> bool:
        """Add the launches to the plan; return whether there are kernels for them."""
        tile = resident(self.call.axes, _MOST, _PER_THREAD, self.call.units)
        if tile is not None and not self.scale.constant:
            self._whole(tile)
        elif self.scale.power == "largest":
            return False
        else:
            self.turned()._in_parts()
        return True

    def turned(self) -> _Forward:
        axes = oriented(self.call.axes)
        return self if axes is None else replace(self, call=self.call.seen(axes))

    def add_moments(self, tile: Tile) -> None:
        """Add the launches that write μ and s²."""
        axes, options = self.call.axes, tile.options(self.call.wide)
        parts = splits(axes, tile, self.call.units)
        programs = parts * axes.p.size * tile.blocks(axes)
        left = self.plan.buffer("left", (3, parts, axes.sets))
        cut = (self.call.sizes, parts, axes.sets)
        tails = {"SHIFT": self.scale.center, "TAILS": tile.tails(axes)}
        x, mean, square = self.call.operands("x", "mean", "square")
        self.plan.launch(forward.moments, programs, x, left, *cut, **tails, **options)
        self._conclude(left, parts, "square")
        if self.scale.power == "absolute":
            self.plan.launch(forward.spread, programs, x, mean, square, left, *cut, **options)
            self._conclude(left, parts, "absolute")

    def _conclude(self, left: Slot, parts: int, power: str) -> None:
        axes = self.call.axes
        block = min(merging(parts), power_of_two(axes.b.size))
        self.plan.launch(
            forward.conclude,
            axes.p.size * -(-axes.b.size // block),
            *self.call.operands("x", "mean", "square"),
            left,
            self.call.sizes,
            parts,
            axes.sets,
            self.scale.factor,
            CENTER=self.scale.center,
            ABOUT=self.scale.about,
            POWER=power,
            SPLITS=power_of_two(parts),
            BB=block,
            WIDE=self.call.wide,
        )

    def _whole(self, tile: Tile) -> None:
        self.plan.launch(
            forward.whole,
            self.call.axes.p.size * tile.blocks(self.call.axes),
            *self._operands(tile),
            self.call.sizes,
            self.scale.factor,
            self.scale.eps,
            CENTER=self.scale.center,
            ABOUT=self.scale.about,
            POWER=self.scale.power,
            PHI=self.phi,
            AXIS=self._axis(tile),
            **tile.options(self.call.wide),
        )
        self._finish(tile)

    def _in_parts(self) -> None:
        axes, tile = self.call.axes, streaming(self.call.axes)
        if not self.scale.constant:
            self.add_moments(tile)
        self.plan.launch(
            forward.normalize,
            axes.p.size * tile.blocks(axes) * tile.rows(axes),
            *self._operands(tile),
            self.call.sizes,
            self.scale.eps,
            PHI=self.phi,
            AXIS=self._axis(tile),
            **tile.options(self.call.wide),
        )
        self._finish(tile)

    def _operands(self, tile: Tile) -> list[Operand | None]:
        """The operands of kernels that write y; also the bits, if no byte crosses a tile."""
        together = self._keeps and self._axis(tile) is not None
        sign_mask = self.call.operand("y", "sign_mask") if together else None
        names = ("x", "residual", "weight", "bias", "y", "mean", "square")
        return [*self.call.operands(*names), sign_mask]

    def _finish(self, tile: Tile) -> None:
        """Write the bits in a launch of their own, if they are not written with y."""
        if self._keeps and self._axis(tile) is None:
            bits.fill(self.plan, self.call.x.numel)

    def _axis(self, tile: Tile) -> int | None:
        return bits.axis(self.call.axes, tile, self.call.index("y"))

    @property
    def _keeps(self) -> bool:
        return self.plan.buffers["sign_mask"].numel > 0
