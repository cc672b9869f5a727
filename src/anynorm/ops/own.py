"""The normalizers of :mod:`anynorm.ops.native` by our own operators, where the device has kernels.

Each is a choice of axes for the formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from anynorm import kernels
from anynorm.ops.crossover import least, pays
from anynorm.ops.formula import working
from anynorm.ops.normalize import normalize
from anynorm.ops.registry import in_transform
from anynorm.ops.running import Running
from anynorm.ops.standardize import standardize
from anynorm.ops.values import PLAIN, Affine, After, Statistic, View

__all__ = ["AVAILABLE", "by_channel", "group", "last", "served", "takes"]

_ON_CPU, _ON_GPU = kernels.available(), kernels.cuda.available()
AVAILABLE = _ON_CPU or _ON_GPU

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_SIXTEEN_BITS = (torch.bfloat16, torch.float16)
_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)
_exporting = torch.compiler.is_exporting


def takes(
    normalizer: str,
    x: Tensor,
    last: Sequence[int] | None,
    weight: Tensor | None,
    bias: Tensor | None,
    after: After,
) -> bool:
    """Whether our kernels can take `x`, and are faster than torch's operators.

    Never in an export, which others shall read.  `last`: the shape of γ and β, which is that of the
    last axes; None where they have the channels.
    """
    fused = after is not PLAIN
    if x.numel() < least(normalizer, x, fused) or _exporting():
        return False
    return (
        served(x)
        and _is_ordinary(x)
        and _fits(x, last, weight, bias)
        and pays(normalizer, x, None if last is None else math.prod(last), fused)
    )


def served(x: Tensor) -> bool:
    """Whether there are kernels for the device and the type of `x`."""
    if x.is_cpu:
        return _ON_CPU and (x.dtype in _TYPES or x.dtype == torch.float64)
    return _ON_GPU and x.is_cuda and x.dtype in _TYPES


def _is_ordinary(x: Tensor) -> bool:
    """Whether nobody looks on who would rather see torch's operators: no transform, no tracing."""
    return torch.compiler.is_compiling() or (
        type(x) in _PLAIN_TENSORS
        and not in_transform()
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
    )


def _fits(
    x: Tensor, last: Sequence[int] | None, weight: Tensor | None, bias: Tensor | None
) -> bool:
    """Whether torch's operator would take it too; if not, it has the message for it."""
    if last is None and x.dim() < 2:
        return False
    shape = x.shape[1:2] if last is None else torch.Size(last)
    if last is not None and (not shape or x.shape[-len(shape) :] != shape):
        return False
    return all(p is None or (p.shape == shape and _suits(p.dtype, x.dtype)) for p in (weight, bias))


def _suits(parameter: torch.dtype, x: torch.dtype) -> bool:
    return parameter == x or (parameter == torch.float32 and x in _SIXTEEN_BITS)


def by_channel(
    x: Tensor,
    first: int,
    running: Running | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    eps: float,
    after: After,
) -> Tensor:
    """Batch norm of x (N, C, *) if the `first` axis that is reduced is 0, instance norm if 2."""
    beside = [1, x.shape[1], *[1] * (x.dim() - 2)]
    affine, view = Affine(weight, bias), View(None, beside)
    if running is not None and not training:
        mean, var = running.mean.view(beside), running.var.view(beside)
        return normalize(x, mean, var, affine, eps, after, view)
    statistic = _deviation([axis for axis in range(first, x.dim()) if axis != 1], eps)
    y, mean, square = standardize(x, affine, statistic, after, view)
    if running is not None:
        count = x.numel() // mean.numel()
        running.track(_channels(mean), _channels(square), count / max(count - 1, 1))
    return y


def _channels(statistic: Tensor) -> Tensor:
    """A vector of channels; those of instances are averaged."""
    return (statistic if statistic.shape[0] == 1 else statistic.mean(0)).view(-1)


def group(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    after: After,
) -> Tensor:
    """Group norm of x (N, C, *)."""
    samples, channels, *positions = x.shape
    split = [samples, groups, channels // groups, *positions]
    beside = [1, *split[1:3], *[1] * len(positions)]
    statistic = _deviation(list(range(2, len(split))), eps)
    view = View(split, beside)
    return standardize(x, Affine(weight, bias), statistic, after, view)[0]


def last(
    x: Tensor,
    shape: Sequence[int],
    center: bool,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    after: After,
) -> Tensor:
    """Layer norm over the last axes, whose sizes are `shape`; RMS norm if not `center`."""
    before = x.dim() - len(shape)
    eps = _epsilon(x) if eps is None else eps
    statistic = Statistic(list(range(before, x.dim())), center, center, 2.0, 1.0, eps)
    view = View(None, [*[1] * before, *shape])
    return standardize(x, Affine(weight, bias), statistic, after, view)[0]


def _deviation(dims: list[int], eps: float) -> Statistic:
    """The mean and the standard deviation over `dims`."""
    return Statistic(dims, True, True, 2.0, 1.0, eps)


def _epsilon(x: Tensor) -> float:
    """That of the type that x is computed in."""
    return torch.finfo(working(x)).eps
