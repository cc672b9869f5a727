"""The GPU kernels on what there is: a GPU, or Triton's interpreter on the CPU."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from samples import Sample
from torch import Tensor

from anynorm.kernels import cuda
from anynorm.ops import Epilogue, formula

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
SERVED = ("standardize", "standardize_backward", "normalize", "normalize_backward")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def dispatched() -> Iterator[list[str] | None]:
    """Send the CPU's calls of the operators to the kernels; yield those seen, None on a GPU."""
    if DEVICE == "cuda":
        yield None
        return
    from anynorm.kernels.triton import operators

    seen: list[str] = []

    def counting(name: str) -> Any:
        def call(*args: Any) -> Any:
            seen.append(name)
            return getattr(operators, name)(*args)

        return call

    library = torch.library.Library("anynorm", "IMPL")
    for name in cuda.OPERATORS:
        library.impl(name, counting(name), "CPU", allow_override=True)
    try:
        yield seen
    finally:
        library._destroy()


def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no set as a whole, as for one that is too large for registers."""
    from anynorm.kernels.triton import launch_plan, plan_backward, plan_forward

    monkeypatch.setattr(launch_plan, "_plans", {})
    for module in (plan_backward, plan_forward):
        monkeypatch.setattr(module, "resident", lambda *_: None)


def placed(tensor: Tensor) -> Tensor:
    """The tensor on the device, in the same strides of the same memory."""
    if DEVICE == "cpu":
        return tensor
    memory = tensor.untyped_storage().to(device=DEVICE)
    empty = torch.empty(0, dtype=tensor.dtype, device=DEVICE)
    return empty.set_(memory, tensor.storage_offset(), tensor.size(), tensor.stride())


def on_device(sample: Sample) -> Sample:
    def move(value: Any) -> Any:
        return placed(value) if isinstance(value, Tensor) else value

    given = sample.given and (move(sample.given[0]), move(sample.given[1]))
    return Sample(*map(move, sample[:-1]), given)


def run(sample: Sample) -> dict[str, Tensor]:
    """All outputs and gradients by the kernels; fail where they do not serve the sample."""
    from anynorm.kernels.triton import operators

    x, residual, weight, bias, dy, statistic, phi, given = on_device(sample)
    with kernels_only(operators):
        if given is None:
            found = operators.standardize(x, residual, weight, bias, *statistic, phi)
            y, mean, square, sign_mask = found
        else:
            y, sign_mask = operators.normalize(
                x, residual, *given, weight, bias, statistic.eps, phi
            )
            mean, square = given
        read = residual if formula.needs_residual(Epilogue(residual, phi)) else None
        saved = (x, read, sign_mask, mean, square, weight, bias)
        if given is None:
            gradients = operators.standardize_backward(dy, *saved, *statistic, phi)
        else:
            gradients = operators.normalize_backward(dy, *saved, statistic.eps, phi)
    outputs = {"y": y, "mean": mean, "square": square, "sign_mask": sign_mask}
    names = ("dx", "dresidual", "dweight", "dbias")
    outputs |= dict(zip(names, gradients, strict=True))
    return {name: value.cpu() for name, value in outputs.items()}


@contextlib.contextmanager
def kernels_only(operators: Any) -> Iterator[None]:
    """Make an operator that hands over to the formula raise instead."""
    sign_mask = {name: getattr(operators, name) for name in SERVED}

    def alone(kernel: Any) -> Any:
        def call(*args: Any) -> Any:
            found = kernel.__wrapped__(*args)
            assert found is not None, f"no kernel serves {kernel.__name__}"
            return found

        return call

    try:
        for name, operator in sign_mask.items():
            setattr(operators, name, alone(operator))
        yield
    finally:
        for name, operator in sign_mask.items():
            setattr(operators, name, operator)
