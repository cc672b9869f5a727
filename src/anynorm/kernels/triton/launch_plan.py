"""Plans: what is launched for tensors of certain forms, found once and run again and again.

A call has some two hundred microseconds of questions before its first launch; a plan has the
answers, so that what is left is memory for the outputs and the launches themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anynorm.kernels.triton.form import Form, form
from anynorm.kernels.triton.operand import Operand

__all__ = ["Launch", "LaunchPlan", "Slot", "on_device_of", "planned"]

_MOST = 4096  # plans that are kept
_plans: dict[Any, LaunchPlan | None] = {}


class Slot(NamedTuple):
    """Stands for the tensor of that name in the arguments of a kernel."""

    name: str


class Launch:
    """A kernel, its grid, and its arguments with slots for tensors."""

    def __init__(self, kernel: Any, programs: int, *args: Any, **options: Any) -> None:
        self.kernel, self.grid = kernel, (programs, 1, 1)
        names = kernel.arg_names
        given = dict(zip(names, args, strict=False)) | options
        self.args = [given.pop(name) for name in names]
        self.options = given  # what is the compiler's: warps
        self.slots = [(i, *_slot(arg)) for i, arg in enumerate(self.args) if _slot(arg)[0]]
        self._compiled: Any = None

    def run(self, tensors: Mapping[str, Tensor]) -> None:
        """Launch it on the tensors, compiled at the first time."""
        args = list(self.args)
        for index, name, steps in self.slots:
            args[index] = Operand(tensors[name], *steps) if steps else tensors[name]
        if self._compiled is None:
            compiled = self.kernel[self.grid](*args, **self.options)
            # The interpreter compiles nothing.
            self._compiled = None if compiled is None else compiled[self.grid]
        else:
            self._compiled(*args)


def _slot(arg: Any) -> tuple[str, tuple[Any, ...]]:
    """The name of the tensor that an argument waits for, and an operand's strides."""
    if isinstance(arg, Operand):
        return arg.data.name, arg[1:]
    return (arg.name if isinstance(arg, Slot) else "", ())


@dataclass
class LaunchPlan:
    """The launches for a call, and the tensors that they need beside those that are given.

    `copies` are given tensors that are laid out anew before: their forms by name.
    """

    x: Form
    buffers: dict[str, Form]
    copies: dict[str, Form]
    launches: list[Launch] = field(default_factory=list)

    def buffer(self, name: str, shape: Sequence[int]) -> Slot:
        """Add memory for float32 values of that shape."""
        self.buffers[name] = self.x.like(shape, torch.float32)
        return Slot(name)

    def launch(self, kernel: Any, programs: int, *args: Any, **options: Any) -> None:
        """Add the launch of a kernel."""
        self.launches.append(Launch(kernel, programs, *args, **options))

    def run(self, given: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Return all tensors by name."""
        tensors = {name: tensor for name, tensor in given.items() if tensor is not None}
        with on_device_of(self.x.device):
            for name, wanted in self.copies.items():
                tensors[name] = wanted.new().copy_(tensors[name])
            for name, wanted in self.buffers.items():
                tensors[name] = wanted.new()
            for launch in self.launches:
                launch.run(tensors)
        return tensors


def on_device_of(device: torch.device) -> Any:
    """Triton launches on the current device, whatever the tensors'."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


def planned(
    planner: Callable[..., LaunchPlan | None],
    given: Mapping[str, Tensor | None],
    rest: Sequence[Any],
) -> LaunchPlan | None:
    """Return what `planner` makes of the forms and the `rest`, remembered; None if nothing."""
    forms = {name: form(tensor) for name, tensor in given.items()}
    rest = [tuple(each) if isinstance(each, list) else each for each in rest]
    key = (planner, *forms.values(), *rest)
    if key not in _plans:
        if len(_plans) >= _MOST:
            _plans.clear()
        _plans[key] = planner(forms, *rest)
    return _plans[key]
