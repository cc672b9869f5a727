"""Plans of the backward pass, from forms to launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from anynorm.activations import activation
from anynorm.kernels.triton import backward as kernels
from anynorm.kernels.triton.call import Forms, KernelCall, call, x_of
from anynorm.kernels.triton.launch_plan import LaunchPlan, Slot
from anynorm.kernels.triton.operand import Operand
from anynorm.kernels.triton.plan_forward import reduced
from anynorm.kernels.triton.scale import Scale
from anynorm.kernels.triton.tiles import (
    Tile,
    columns,
    merging,
    oriented,
    power_of_two,
    resident,
    splits,
    streaming,
)

__all__ = ["normalize", "standardize"]

_MOST = 1 << 14  # most values of a set that a program keeps in registers, plus as many of dy
_PER_THREAD = 32


def standardize(forms: Forms, dims: Sequence[int], *rest: Any) -> LaunchPlan | None:
    """Plan dx, dresidual and the rows whose sums are the gradients of γ and β."""
    *statistic, phi = rest
    return _planned(forms, dims, Scale.of(dims, *statistic), phi)


def normalize(forms: Forms, eps: float, phi: str) -> LaunchPlan | None:
    """Plan the same for statistics that are constants."""
    return _planned(forms, reduced(forms), Scale.given(eps), phi)


def _planned(forms: Forms, dims: Sequence[int], scale: Scale | None, phi: str) -> LaunchPlan | None:
    dense, residual, bits = x_of(forms).dense(), forms["residual"], forms["sign_mask"] is not None
    gives = phi != "identity" and (residual is not None or bits)
    if gives and activation(phi).by_sign and not bits:
        return None
    outputs = {"dx": dense, "dresidual": dense if gives else None}
    read = residual if gives and not bits else None
    found = call(dims, {**forms, "sign_mask": None, "residual": read, **outputs})
    if scale is None or found is None:
        return None
    plan = found.plan(outputs)
    served = _Backward(plan, found, bits, scale, phi).add()
    return plan if served else None


@dataclass(frozen=True)
class _Backward:
    """The common arguments of the launches.  `bits`: whether φ's derivative is read from bits."""

    plan: LaunchPlan
    call: KernelCall
    bits: bool
    scale: Scale
    phi: str

    def add(self) -> bool:
        """Add the launches to the plan; return whether there are kernels for them."""
        found = self.call
        tile = resident(found.axes, _MOST, _PER_THREAD, found.units)
        if tile is not None and not self.scale.constant:
            self._whole(tile)
            return True
        axes = oriented(found.axes, found.affine)
        if axes is None or self.scale.power == "largest":
            return False
        replace(self, call=found.seen(axes))._in_parts()
        return True

    def _whole(self, tile: Tile) -> None:
        width = self._columns(tile, 1)
        self.plan.launch(
            kernels.whole,
            self.call.axes.p.size * width,
            *self._operands(),
            *self._rows(1, width),
            self.call.sizes,
            width,
            self.call.numel,
            self.scale.factor,
            self.scale.eps,
            CENTER=self.scale.center,
            ABOUT=self.scale.about,
            POWER=self.scale.power,
            PHI=self.phi,
            **tile.options(self.call.wide),
        )

    def _in_parts(self) -> None:
        """Launch the sums first, unless statistics are constants, then dx."""
        axes, inside = self.call.axes, self.call.differs_inside
        tile = streaming(axes, self.call.affine)
        sums = None if self.scale.constant else self._sums(tile)
        rows, width = tile.rows(axes), self._columns(tile, tile.rows(axes))
        self.plan.launch(
            kernels.apply,
            axes.p.size * width * rows,
            *self._operands(),
            *self._rows(rows if inside or sums is None else 1, width),
            sums,
            self.call.sizes,
            axes.sets,
            width,
            self.call.numel,
            self.scale.factor,
            self.scale.eps,
            CENTER=self.scale.center,
            ABOUT=self.scale.about,
            INSIDE=inside,
            POWER=self.scale.power,
            PHI=self.phi,
            **tile.options(self.call.wide),
        )

    def _sums(self, tile: Tile) -> Slot:
        """The sums over each set of g, of g · (x − μ)/σ, and for p = 1 of the slope."""
        axes = self.call.axes
        parts, fields = splits(axes, tile, self.call.units), 2 + (self.scale.power == "absolute")
        left = self.plan.buffer("left", (fields, parts, axes.sets))
        self.plan.launch(
            kernels.reduce,
            parts * axes.p.size * tile.blocks(axes),
            *self._operands()[:-2],
            left,
            self.call.sizes,
            parts,
            axes.sets,
            self.scale.eps,
            INSIDE=self.call.differs_inside,
            POWER=self.scale.power,
            PHI=self.phi,
            **tile.options(self.call.wide),
        )
        if parts == 1:
            return left
        sums, block = self.plan.buffer("sums", (fields, axes.sets)), merging(parts)
        programs = fields * -(-axes.sets // block)
        cut = {"SPLITS": power_of_two(parts), "BLOCK": block}
        self.plan.launch(kernels.conclude, programs, left, sums, parts, axes.sets, **cut)
        return sums

    def _operands(self) -> list[Operand | None]:
        bits = self.call.operand("dx", "sign_mask") if self.bits else None
        names = ("mean", "square", "weight", "bias", "dx", "dresidual")
        return [*self.call.operands("dy", "x", "residual"), bits, *self.call.operands(*names)]

    def _columns(self, tile: Tile, others: int) -> int:
        """The number of programs along B; it is small if they sum γ's gradient over B."""
        axes, affine = self.call.axes, self.call.affine
        if affine is None or axes.b.strides[affine] is not None:
            return tile.blocks(axes)
        return columns(axes, tile, axes.p.size * others, self.call.units)

    def _rows(self, rows: int, width: int) -> list[Operand | None]:
        """Buffers of rows whose sums are the gradients of γ and β."""
        return [self._rows_of(name, rows, width) for name in ("weight", "bias")]

    def _rows_of(self, name: str, rows: int, width: int) -> Operand | None:
        if self.call.forms[name] is None:
            return None
        p, a, b, _ = self.call.axes.steps(self.call.index(name))
        count = (self.call.axes.p.size if p is None else 1) * (rows if a is None else 1)
        count *= width if b is None else 1
        return self.call.operand(name, self.plan.buffer(f"d{name}", (count, self.call.numel)).name)
