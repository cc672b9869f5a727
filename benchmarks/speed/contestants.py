"""Who takes part: layers that were built, that run, and that compute what torch.nn's does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from anynorm.bench.cases import Case
from anynorm.bench.comparison import OURS
from anynorm.bench.layers import Inputs, placed
from benchmarks.hardware import healthy
from benchmarks.speed.normalizers import ours, theirs
from benchmarks.speed.peers import PEERS

__all__ = ["Attempts", "BrokenDeviceError", "alike", "built"]

# How far outputs may be off, relative to their norm: this finds what computes something else, the
# tests compare digits.  Gradients jump where rounding decides on which side of φ's kink a value is.
MOST = {"fp32": 1e-3, "bf16": 2**-5}
MOST_OF_GRADIENT = 0.1
MOST_WORDS = 300
T = TypeVar("T")


class BrokenDeviceError(RuntimeError):
    """A GPU that no longer works after an error; only another process can use it again."""

    def __init__(self, contestant: str, reason: str) -> None:
        self.contestant, self.reason = contestant, reason
        super().__init__(f"{contestant} broke the device: {reason}")


class DisagreementError(ArithmeticError):
    """A contestant that computes something else."""


class Attempts:
    """Runs what may fail, and keeps the reasons by the contestant's name."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.failed: dict[str, str] = {}

    def __call__(self, name: str, action: Callable[[], T]) -> T | None:
        """Return what `action` does, or None; raises `BrokenDeviceError`."""
        try:
            return action()
        except Exception as error:
            words = " ".join(str(error).split())[:MOST_WORDS]
            self.failed[name] = f"{type(error).__name__}: {words}"
        if not healthy(self.device):
            raise BrokenDeviceError(name, self.failed[name])
        torch.cuda.empty_cache()
        return None


def built(
    cases: Sequence[Case], peers: Iterable[str], given: Inputs, attempt: Attempts
) -> dict[str, nn.Module]:
    """Return the layers of ours and of the peers that serve one of the cases, by name."""
    reference = theirs(cases[0], attempt.device)
    expected = attempt("reference", lambda: _results(reference, cases[0], given))
    if expected is None:
        return {}
    layers = {}
    for name in (OURS, *peers):
        layer = attempt(name, lambda: _checked(name, cases, given, reference, expected))  # noqa: B023
        if layer is not None:
            layers[name] = layer
    return layers


def _checked(
    name: str,
    cases: Sequence[Case],
    given: Inputs,
    reference: nn.Module,
    expected: tuple[Tensor, Tensor],
) -> nn.Module | None:
    build = ours if name == OURS else PEERS[name].build
    if build is None or not (name == OURS or any(map(PEERS[name].serves, cases))):
        return None
    layer = placed(build(cases[0]), cases[0], str(given.x.device))
    alike(reference, layer)
    bounds = MOST[cases[0].dtype], MOST_OF_GRADIENT
    found = zip(_results(layer, cases[0], given), expected, bounds, ("y", "dx"), strict=True)
    for value, wanted, most, what in found:
        if not (off := _off(value, wanted)) <= most:
            raise DisagreementError(f"{what} is off by {off:.2g} of torch.nn's norm")
    return layer


def alike(layer: nn.Module, other: nn.Module) -> None:
    """Give `other` the parameters of `layer`, in their order."""
    with torch.no_grad():
        for parameter, target in zip(layer.parameters(), other.parameters(), strict=True):
            target.copy_(parameter.view_as(target))


def _results(layer: nn.Module, case: Case, given: Inputs) -> tuple[Tensor, Tensor]:
    """The output and the gradient of x."""
    layer.train(case.phase != "evaluation")
    y = layer(*given.forward)
    (dx,) = torch.autograd.grad(y, given.x, given.dy)
    return y.detach(), dx


def _off(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference, relative to that of what was expected."""
    wide = expected.float()
    return float(torch.linalg.vector_norm(found.float() - wide) / torch.linalg.vector_norm(wide))
