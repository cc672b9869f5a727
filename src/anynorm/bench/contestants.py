"""Who takes part: layers that were built, that run, and that compute what torch.nn's does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from anynorm.bench import devices
from anynorm.bench.cases import DTYPES, Case
from anynorm.bench.layers import Inputs, alike, ours, theirs
from anynorm.bench.peers import PEERS

__all__ = ["OURS", "Attempts", "BrokenDeviceError", "built", "parameter_type"]

OURS = "ours"
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
        if not devices.healthy(self.device):
            raise BrokenDeviceError(name, self.failed[name])
        devices.free(self.device)
        return None


def built(
    cases: Sequence[Case], peers: Iterable[str], given: Inputs, attempt: Attempts
) -> dict[str, nn.Module]:
    """Return the layers of ours and of the peers that serve one of the cases, by name."""
    reference = _placed(theirs(cases[0]), cases[0], attempt.device)
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
    layer = _placed(build(cases[0]), cases[0], str(given.x.device))
    alike(reference, layer)
    bounds = MOST[cases[0].dtype], MOST_OF_GRADIENT
    found = zip(_results(layer, cases[0], given), expected, bounds, ("y", "dx"), strict=True)
    for value, wanted, most, what in found:
        if not (off := _off(value, wanted)) <= most:
            raise DisagreementError(f"{what} is off by {off:.2g} of torch.nn's norm")
    return layer


def _placed(layer: nn.Module, case: Case, device: str) -> nn.Module:
    return layer.to(device, parameter_type(case, device))


def parameter_type(case: Case, device: str) -> torch.dtype:
    """Return the type of the parameters: the input's, but float32 for batch norm on a GPU.

    So autocast leaves it there, and torch takes cuDNN's kernels.

    >>> case = Case("batch", "contiguous", (4, 8, 2, 2), "bf16", "plain", "both")
    >>> parameter_type(case, "cpu"), parameter_type(case, "cuda:0")
    (torch.bfloat16, torch.float32)
    """
    mixed = device != "cpu" and case.normalizer.startswith("batch")
    return torch.float32 if mixed else DTYPES[case.dtype]


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
