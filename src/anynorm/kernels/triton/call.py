"""The tensors of a call, and the axes by which kernels address them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from anynorm.kernels.triton.form import Form
from anynorm.kernels.triton.geometry import Axes, find
from anynorm.kernels.triton.launch_plan import LaunchPlan, Slot
from anynorm.kernels.triton.operand import Extent, Operand

__all__ = ["KernelCall", "call", "x_of"]

_FAR = 1 << 31
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_INTERPRETED_UNITS = 4

Forms = Mapping[str, Form | None]


@dataclass(frozen=True)
class KernelCall:
    """Forms of tensors by name, `x` first, and the axes by which they are addressed.

    `copies`: the tensors that must be copied to another memory layout first.
    """

    forms: Forms
    axes: Axes
    copies: dict[str, Form]

    def operand(self, name: str, data: str = "") -> Operand | None:
        """Return the operand of the tensor `name`, or of `data` with the same strides."""
        if self.forms[name] is None:
            return None
        return Operand.of(Slot(data or name), self.axes.steps(self.index(name)))

    def operands(self, *names: str) -> list[Operand | None]:
        """Return the operands of several tensors."""
        return [self.operand(name) for name in names]

    def plan(self, outputs: Iterable[str]) -> LaunchPlan:
        """Begin the plan of what makes these of its tensors."""
        forms = {name: own for name in outputs if (own := self.forms[name]) is not None}
        return LaunchPlan(self.x, forms, self.copies)

    def seen(self, axes: Axes) -> KernelCall:
        """Return the call with other axes for the same tensors."""
        return replace(self, axes=axes)

    def index(self, name: str) -> int:
        """The index of a tensor's strides in each axis."""
        return list(self.forms).index(name)

    @property
    def x(self) -> Form:
        """The input."""
        return x_of(self.forms)

    @cached_property
    def wide(self) -> bool:
        """Whether offsets do not fit in 32 bits."""
        return any(each is not None and each.reach >= _FAR for each in self.forms.values())

    @cached_property
    def units(self) -> int:
        """How many multiprocessors the device has."""
        if self.x.device.type != "cuda":
            return _INTERPRETED_UNITS
        return int(torch.cuda.get_device_properties(self.x.device).multi_processor_count)

    @property
    def affine(self) -> int | None:
        """The index of γ's strides, or of β's if there is no γ; None without both."""
        for name in ("weight", "bias"):
            if self.forms.get(name) is not None:
                return self.index(name)
        return None

    @property
    def numel(self) -> int:
        """How many values γ has."""
        parameter = None if self.affine is None else [*self.forms.values()][self.affine]
        return 0 if parameter is None else parameter.numel

    @property
    def differs_inside(self) -> bool:
        """Whether γ varies within a set, the values of one statistic."""
        if self.affine is None:
            return False
        return any(axis.strides[self.affine] is not None for axis in (self.axes.a, self.axes.c))

    @property
    def sizes(self) -> tuple[Extent, ...]:
        """The sizes of A, B and C."""
        return tuple(Extent.of(axis.size) for axis in self.axes[1:])


def x_of(forms: Forms) -> Form:
    """Return the form of the input, which is always there."""
    x = forms["x"]
    assert x is not None
    return x


def call(dims: Sequence[int], forms: Forms) -> KernelCall | None:
    """Return the call for tensors that broadcast against x; None if kernels cannot take them.

    Statistics are over `dims`.  Some sliced tensors need more than four axes; they are copied.
    """
    x = x_of(forms)
    if x.numel < 2 or not _takes(forms, x):
        return None
    # The gradients of γ and β have the memory layout of these copies.
    copies = {
        name: own.like(own.shape, own.dtype)
        for name in ("weight", "bias")
        if (own := forms.get(name)) is not None
        and own.strides != own.like(own.shape, own.dtype).strides
    }
    found = _call(dims, forms, copies)
    if found is not None:
        return found
    dense = x.dense()
    inputs = [name for name in ("x", "dy", "residual") if forms.get(name) is not None]
    return _call(dims, forms, copies | dict.fromkeys(inputs, dense))


def _takes(forms: Forms, x: Form) -> bool:
    """Whether kernels take these types and shapes; if not, the formula runs or raises the error."""
    weight, bias = forms.get("weight"), forms.get("bias")
    together = weight is None or bias is None or weight.shape == bias.shape
    there = {name: own for name, own in forms.items() if own is not None}
    return together and all(_fits(name, own, x) for name, own in there.items())


def _fits(name: str, own: Form, x: Form) -> bool:
    if own.device != x.device:
        return False
    if name in ("mean", "square"):
        return own.dtype in (*_TYPES, torch.float64) and own.beside(x)
    if name in ("weight", "bias"):
        return own.dtype in _TYPES and own.beside(x)
    return own.dtype == x.dtype and own.dtype in _TYPES and own.shape == x.shape


def _call(dims: Sequence[int], forms: Forms, copies: dict[str, Form]) -> KernelCall | None:
    forms = {**forms, **copies}
    shape = x_of(forms).shape
    strides = tuple((None,) * len(shape) if f is None else f.steps() for f in forms.values())
    axes = find(shape, dims, strides)
    return None if axes is None else KernelCall(forms, axes, copies)
