"""Two runs that should agree: do their outputs, and which layer tells them apart first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from anynorm.surgery.batches import Batch, Forward, call, plain, tensors_of
from anynorm.surgery.call_args import input_of
from anynorm.surgery.modes import evaluating
from anynorm.surgery.receipt import Difference

__all__ = ["Run", "apart", "first_apart", "in_double", "matched", "run"]


@dataclass(frozen=True)
class Run:
    """What a model puts out for a batch in eval mode, and what goes through the named layers."""

    outputs: list[Tensor]
    through: dict[str, tuple[Tensor, Tensor]]


def matched(alone: Run, together: Run, index: int, samples: int) -> tuple[Run, Run]:
    """A run of one sample, and its part of a run of several; what has no such part is left out."""
    pairs = [
        (one, part)
        for one, whole in zip(alone.outputs, together.outputs, strict=False)
        if (part := _part(whole, one, index, samples)) is not None
    ]
    through = {
        name: (x, y)
        for name, found in alone.through.items()
        if (x := _both(found, together.through.get(name), 0, index, samples))
        and (y := _both(found, together.through.get(name), 1, index, samples))
    }
    single, within = (
        Run(
            [pair[side] for pair in pairs], {n: (x[side], y[side]) for n, (x, y) in through.items()}
        )
        for side in (0, 1)
    )
    return single, within


_Through = tuple[Tensor, Tensor]


def _both(
    alone: _Through, whole: _Through | None, which: int, index: int, samples: int
) -> _Through | None:
    part = None if whole is None else _part(whole[which], alone[which], index, samples)
    return None if part is None else (alone[which], part)


def _part(whole: Tensor, alone: Tensor, index: int, samples: int) -> Tensor | None:
    """One sample along the only axis in which two tensors differ, which must be that of samples."""
    if whole.dim() != alone.dim():
        return None
    sizes = enumerate(zip(whole.shape, alone.shape, strict=True))
    axes = [axis for axis, (several, one) in sizes if several != one]
    if len(axes) != 1 or (whole.shape[axes[0]], alone.shape[axes[0]]) != (samples, 1):
        return None
    return whole.narrow(axes[0], index, 1)


def run(
    model: nn.Module, batch: Batch, names: Sequence[str], forward: Forward | None = None
) -> Run:
    """Call the model; of the layers with `names` the first call's input and output are kept."""
    through: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> None:
            x = input_of(args, kwargs)
            if name not in through and isinstance(x, Tensor) and isinstance(y, Tensor):
                through[name] = (x.detach().clone(), y.detach().clone())

        return keep

    modules = dict(model.named_modules())
    found = [(name, modules[name]) for name in names if name in modules]
    hooks = [m.register_forward_hook(hook(name), with_kwargs=True) for name, m in found]
    try:
        with evaluating(model):
            outputs = tensors_of(call(model, batch, forward))
            return Run([t.detach().clone() for t in outputs], through)
    finally:
        for handle in hooks:
            handle.remove()


def apart(one: Run, other: Run) -> float:
    """The largest relative difference of the outputs."""
    if not one.outputs and not other.outputs:
        return 0.0
    return Difference.between(one.outputs, other.outputs).relative


def first_apart(one: Run, other: Run, tolerance: float) -> str:
    """The first layer that two runs reach with the same input and leave with different outputs."""
    for name, (x, y) in one.through.items():
        if name in other.through:
            inputs, outputs = zip((x, y), other.through[name], strict=True)
            near, far = (Difference.between([a], [b]).relative for a, b in (inputs, outputs))
            if near <= tolerance < far:
                return name
    return ""


def in_double(batch: Batch) -> Batch:
    """A batch with its floating-point numbers in float64."""

    def widened(x: Tensor) -> Tensor:
        return x.double() if x.is_floating_point() else x

    return tree_map_only(Tensor, widened, plain(batch))
