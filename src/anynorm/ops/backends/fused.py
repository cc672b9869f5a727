"""The normalizers that torch has an operator for, by our kernels.

Each is a choice of axes for the formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from anynorm import kernels
from anynorm.ops.call import NormCall
from anynorm.ops.dispatch_thresholds import GPU_SMALLEST, SMALLEST, pays
from anynorm.ops.formula import SIXTEEN_BITS, working
from anynorm.ops.normalize import normalize
from anynorm.ops.registry import in_transform
from anynorm.ops.standardize import standardize
from anynorm.ops.types import PLAIN, Affine, Epilogue, Statistic, View

__all__ = ["AVAILABLE", "by_channel", "group", "last", "takes"]

AVAILABLE = kernels.available() or kernels.cuda.available()

_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)
_exporting = torch.compiler.is_exporting


def takes(
    normalizer: str,
    x: Tensor,
    last: Sequence[int] | None,
    weight: Tensor | None,
    bias: Tensor | None,
    epilogue: Epilogue,
) -> bool:
    """Whether our kernels can take `x`, and are faster than torch's operators.

    Never in an export, which others shall read.  `last`: the shape of γ and β, which is that of the
    last axes; None where they have the channels.
    """
    fused = epilogue is not PLAIN
    least = (SMALLEST if x.is_cpu else GPU_SMALLEST)[normalizer]
    if x.numel() < (least.fused if fused else least.plain) or _exporting():
        return False
    return (
        kernels.served(x)
        and _is_ordinary(x)
        and _fits(x, last, weight, bias)
        and pays(normalizer, x, None if last is None else math.prod(last), fused)
    )


def _is_ordinary(x: Tensor) -> bool:
    """Return False if a transform, a tracer or forward-mode differentiation is active.

    They need torch's operators.
    """
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
    # Parameters in float32 go with inputs of 16 bits.
    types = (x.dtype, torch.float32) if x.dtype in SIXTEEN_BITS else (x.dtype,)
    for parameter in (weight, bias):
        if parameter is not None and (parameter.shape != shape or parameter.dtype not in types):
            return False
    return True


def by_channel(x: Tensor, first: int, call: NormCall) -> Tensor:
    """Batch norm of x (N, C, *) if the `first` axis that is reduced is 0, instance norm if 2."""
    affine, running, epilogue = call.affine, call.running, call.epilogue
    beside = [1, x.shape[1], *[1] * (x.dim() - 2)]
    view = View(None, beside)
    if running is not None and not call.training:
        mean, var = running.mean.view(beside), running.var.view(beside)
        return normalize(x, mean, var, affine, call.eps, epilogue, view)
    dims = [axis for axis in range(first, x.dim()) if axis != 1]
    statistic = Statistic(dims, True, True, 2.0, 1.0, call.eps)
    y, mean, square = standardize(x, affine, statistic, epilogue, view)
    if running is not None:
        count = x.numel() // mean.numel()
        running.track(_channels(mean), _channels(square), count / max(count - 1, 1))
    return y


def _channels(statistic: Tensor) -> Tensor:
    """A vector of channels; those of instances are averaged."""
    return (statistic if statistic.shape[0] == 1 else statistic.mean(0)).view(-1)


def group(x: Tensor, groups: int, call: NormCall) -> Tensor:
    """Group norm of x (N, C, *)."""
    samples, channels, *positions = x.shape
    split = [samples, groups, channels // groups, *positions]
    beside = [1, *split[1:3], *[1] * len(positions)]
    statistic = Statistic(list(range(2, len(split))), True, True, 2.0, 1.0, call.eps)
    return standardize(x, call.affine, statistic, call.epilogue, View(split, beside))[0]


def last(
    x: Tensor,
    shape: Sequence[int],
    center: bool,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    epilogue: Epilogue,
) -> Tensor:
    """Layer norm over the last axes, whose sizes are `shape`; RMS norm if not `center`."""
    before = x.dim() - len(shape)
    eps = _epsilon(x) if eps is None else eps
    statistic = Statistic(list(range(before, x.dim())), center, center, 2.0, 1.0, eps)
    view = View(None, [*[1] * before, *shape])
    return standardize(x, Affine(weight, bias), statistic, epilogue, view)[0]


def _epsilon(x: Tensor) -> float:
    """That of the type that x is computed in."""
    return torch.finfo(working(x)).eps
