"""Plans: the launches for tensors of certain forms, computed once and reused.

Choosing kernels, grids and arguments takes about two hundred microseconds per call.  A plan stores
the result, so that a call only allocates the outputs and launches the kernels.
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

_MOST = 4096  # the number of plans in the cache
_plans: dict[Any, LaunchPlan | None] = {}


class Slot(NamedTuple):
    """A placeholder for the tensor `name` in the arguments of a kernel."""

    name: str


class Launch:
    """A kernel, its grid, and its arguments with slots for tensors."""

    def __init__(self, kernel: Any, programs: int, *args: Any, **options: Any) -> None:
        self.kernel, self.grid = kernel, (programs, 1, 1)
        names = kernel.arg_names
        given = dict(zip(names, args, strict=False)) | options
        self.args = [given.pop(name) for name in names]
        self.options = given  # options of the compiler: warps
        self.slots = [(i, *_slot(arg)) for i, arg in enumerate(self.args) if _slot(arg)[0]]
        self._compiled: Any = None

    def run(self, tensors: Mapping[str, Tensor]) -> None:
        """Launch the kernel on the tensors; the first launch compiles it."""
        args = list(self.args)
        for index, name, steps in self.slots:
            args[index] = Operand(tensors[name], *steps) if steps else tensors[name]
        if self._compiled is None:
            compiled = self.kernel[self.grid](*args, **self.options)
            # The interpreter does not compile.
            self._compiled = None if compiled is None else compiled[self.grid]
        else:
            self._compiled(*args)


def _slot(arg: Any) -> tuple[str, tuple[Any, ...]]:
    """The name of the tensor that replaces an argument, and the strides of an operand."""
    if isinstance(arg, Operand):
        return arg.data.name, arg[1:]
    return (arg.name if isinstance(arg, Slot) else "", ())


@dataclass
class LaunchPlan:
    """The launches for a call, and the tensors that they need in addition to the inputs.

    `copies`: inputs that are copied to another memory layout first, as forms by name.
    """

    x: Form
    buffers: dict[str, Form]
    copies: dict[str, Form]
    launches: list[Launch] = field(default_factory=list)

    def buffer(self, name: str, shape: Sequence[int]) -> Slot:
        """Add a buffer of float32 values of this shape."""
        self.buffers[name] = self.x.like(shape, torch.float32)
        return Slot(name)

    def launch(self, kernel: Any, programs: int, *args: Any, **options: Any) -> None:
        """Add a launch of a kernel."""
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
    """Make the device of the tensors current, because Triton launches on the current device."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


def planned(
    planner: Callable[..., LaunchPlan | None],
    given: Mapping[str, Tensor | None],
    rest: Sequence[Any],
) -> LaunchPlan | None:
    """Return the plan that `planner` makes from the forms and the `rest`, cached; or None."""
    forms = {name: form(tensor) for name, tensor in given.items()}
    rest = [tuple(each) if isinstance(each, list) else each for each in rest]
    key = (planner, *forms.values(), *rest)
    if key not in _plans:
        if len(_plans) >= _MOST:
            _plans.clear()
        _plans[key] = planner(forms, *rest)
    return _plans[key]
