"""The normalizers for which torch has an operator of its own.

Our kernels take the inputs that they are faster on (:mod:`anynorm.ops.backends.fused`), torch's
operators everything else.  The way to them is short: a layer on a small input costs little more
than the call itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from operator import mul
from typing import Any, cast

import torch
from torch import Tensor

from anynorm.ops.backends import fused
from anynorm.ops.backends.affine import empty
from anynorm.ops.call import NormCall
from anynorm.ops.formula import SIXTEEN_BITS
from anynorm.ops.registry import in_transform
from anynorm.ops.running import Running, plain_eager
from anynorm.ops.types import PLAIN, Affine, Epilogue
from anynorm.spec import Spec

__all__ = [
    "batch",
    "evaluate",
    "group",
    "instance",
    "layer",
    "layer_of_last",
    "one_group",
    "rms",
    "rms_of_last",
    "takes_weight",
    "weight",
    "weight_norm",
]

_CUDNN = torch.backends.cudnn
_WIDE = (torch.float32, torch.float64)
_OWN = fused.AVAILABLE

# torch.batch_norm or torch.instance_norm, which have the same signature and write running
# statistics in the same way.
_Operator = Callable[..., Tensor]


def instance(x: Tensor, call: NormCall) -> Tensor:
    """Instance norm of x (N, C, *), with statistics of each instance in training."""
    if x.numel() == 0:  # which torch's operator cannot take
        return empty(x, call)
    return _by_channel("instance", torch.instance_norm, 2, x, call)


def layer_of_last(x: Tensor, call: NormCall) -> Tensor:
    """Layer norm over the last axis."""
    return layer(x, x.shape[-1:], *call.affine, call.eps, call.epilogue)


def rms_of_last(x: Tensor, call: NormCall) -> Tensor:
    """RMS norm over the last axis."""
    return rms(x, x.shape[-1:], call.affine.weight, call.eps, call.epilogue)


def layer(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    epilogue: Epilogue = PLAIN,
) -> Tensor:
    """Layer norm over the last axes, whose sizes are `shape`."""
    if _OWN and fused.takes("layer", x, shape, weight, bias, epilogue):
        return fused.last(x, shape, True, weight, bias, eps, epilogue)
    y = torch.layer_norm(x, shape, weight, bias, eps, _CUDNN.enabled)
    return y if epilogue is PLAIN else epilogue.apply(y)


def rms(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    eps: float | None,
    epilogue: Epilogue = PLAIN,
) -> Tensor:
    """RMS norm over the last axes, whose sizes are `shape`; ε is the type's epsilon if None.

    Of 16-bit inputs, that of float32, in which they are computed.
    """
    if _OWN and fused.takes("rms", x, shape, weight, None, epilogue):
        return fused.last(x, shape, False, weight, None, eps, epilogue)
    y = torch.rms_norm(x, shape, weight, eps)
    return y if epilogue is PLAIN else epilogue.apply(y)


def group(x: Tensor, call: NormCall) -> Tensor:
    """Group norm of x (N, C, *), whose groups are the size of g."""
    if x.numel() == 0:  # where torch's operator gives γ a gradient of NaN
        return empty(x, call)
    (weight, bias), epilogue, groups = call.affine, call.epilogue, call.sizes.get("g")
    if not groups or x.shape[1] % groups:  # from the size of a group, or an error of ours
        groups = call.plan.view(tuple(x.shape), call.sizes)[1]
    if _OWN and fused.takes("group", x, None, weight, bias, epilogue):
        return fused.group(x, groups, call)
    y = torch.group_norm(x, groups, weight, bias, call.eps, _CUDNN.enabled)
    return y if epilogue is PLAIN else epilogue.apply(y)


def one_group(x: Tensor, call: NormCall) -> Tensor:
    """Group norm of x (N, C, *) with one group."""
    return group(x, call._replace(sizes={"g": 1}))


def weight(w: Tensor, call: NormCall) -> Tensor:
    """Weight norm, where :func:`takes_weight` says that torch's operator serves it."""
    assert call.affine.weight is not None
    return weight_norm(w, call.affine.weight)


def weight_norm(w: Tensor, gain: Tensor) -> Tensor:
    """Weight norm: γ · w / ‖w‖ for each unit of `w` (O, I, *) and γ of shape (O,).

    In float32 the squares of ‖w‖ must be numbers of float32: ‖w‖ between about 1e-18 and 1e19.
    """
    if torch.compiler.is_compiling():
        return w * (gain.reshape(-1, *[1] * (w.dim() - 1)) / _norm(w))
    return cast(Tensor, _apply(w, gain))


class _WeightNorm(torch.autograd.Function):
    """torch's operator with a second derivative that is right (its own is not, in torch 2.13).

    Its kernels take γ and the norms as vectors, which saves views of them.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, gain: Tensor) -> Tensor:
        y, norms = torch._weight_norm_interface(w, gain, 0)
        ctx.save_for_backward(w, gain, norms)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        w, gain, norms = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return cast(tuple[Tensor, Tensor], _pull_back(dy.contiguous(), w, gain, norms, 0))
        norms, beside = _norm(w), gain.reshape(-1, *[1] * (w.dim() - 1))
        dgain = (dy * w).sum(tuple(range(1, w.dim())), keepdim=True) / norms
        return (dy - w * (dgain / norms)) * (beside / norms), dgain.reshape(-1)


_pull_back = torch.ops.aten._weight_norm_interface_backward.default
# What Function.apply calls outside of the transforms of torch.func, where alone we are called.
_apply = super(torch.autograd.Function, _WeightNorm).apply


def _norm(w: Tensor) -> Tensor:
    """The L2 norm of each unit."""
    # Of core operators, for torch.export.
    return w.square().sum(tuple(range(1, w.dim())), keepdim=True).sqrt()


def evaluate(x: Tensor, call: NormCall) -> Tensor:
    """Normalize by running statistics: each variance is an s², so batch norm serves them all."""
    running, epilogue, first = call.running, call.epilogue, call.plan.first
    assert running is not None
    call = call if call.spec.scale else call._replace(eps=0.0)
    if call.spec.learned.offset and (gain := call.affine.weight) is not None:
        # torch's operator wants all of one type, and 1 + w is wider than a 16-bit w
        call = call._replace(affine=Affine(gain.to(running.mean.dtype), call.affine.bias))
    width = running.mean.dim()
    if width == 1 and first == 1:
        return batch(x, call)
    # The operator wants the axes of the statistics as one, and that one second.
    weight, bias = (p if p is None else p.reshape(-1) for p in call.affine)
    still = running._replace(mean=running.mean.reshape(-1), var=running.var.reshape(-1))

    def moved(t: Tensor) -> Tensor:
        if width == 0:
            return t.reshape(1, 1, -1)
        return t.flatten(first, first + width - 1).movedim(first, 1)

    if epilogue.residual is not None:
        epilogue = Epilogue(moved(epilogue.residual), epilogue.phi)
    call = call._replace(affine=Affine(weight, bias), running=still, epilogue=epilogue)
    y = batch(moved(x), call)
    return (y if width == 0 else y.movedim(1, first)).reshape(x.shape)


def takes_weight(w: Tensor, spec: Spec, gain: Tensor | None, eps: float) -> bool:
    """Whether torch's weight norm serves `w`.

    Its σ is the L2 norm, without ε.  It needs γ and contiguous weights, of which it returns a
    contiguous result.  In 16 bits, and for the transforms of torch.func, the formula is used.
    """
    return (
        spec.is_norm
        and spec.pattern.text == "o [i ...]"
        and eps == 0
        and gain is not None
        and gain.dtype == w.dtype
        and w.dtype in _WIDE
        and gain.shape == w.shape[:1]
        and gain.is_contiguous()
        and w.is_contiguous()
        and w.numel() > 0
        and not w.is_mps  # whose operator wants γ in the shape of the norms
        and not in_transform()
    )


def _by_channel(
    normalizer: str, operator: _Operator, first: int, x: Tensor, call: NormCall
) -> Tensor:
    """γ and β for each channel, statistics over the axes from the `first` one on."""
    epilogue = call.epilogue
    ours = _OWN and (call.training or (epilogue is not PLAIN and call.running is not None))
    if ours and fused.takes(normalizer, x, None, *call.affine, epilogue):
        return fused.by_channel(x, first, call)
    y = _run(operator, x, call)
    return y if epilogue is PLAIN else epilogue.apply(y)


# Batch norm of x (N, C, *), with statistics of this batch in training.  A partial and not a
# function, because one more Python call counts for small inputs.
batch = partial(_by_channel, "batch", torch.batch_norm, 0)


def _run(operator: _Operator, x: Tensor, call: NormCall) -> Tensor:
    if x.dim() > 3 and 1 in x.shape and (operator is not torch.batch_norm or _has_other_strides(x)):
        # The backward of torch 2.13 may take dy and x for different memory formats here.  Inputs
        # (N, C, L) have only one.
        flat = x.flatten(2)
        if x.dtype in SIXTEEN_BITS:  # of other strides the operator rounds twice
            flat = flat.contiguous()
        return _run(operator, flat, call).reshape(x.shape)
    (weight, bias), running, training, eps = call[2:6]
    if running is None or (training and x.numel() == 0):  # an empty batch is not counted
        return operator(x, weight, bias, None, None, training, 0.0, eps, _CUDNN.enabled)
    mean, var, _, momentum = running
    if not training:
        return operator(x, weight, bias, mean, var, False, 0.0, eps, _CUDNN.enabled)
    if momentum is not None and plain_eager(mean):
        return _track_in_place(operator, x, running, weight, bias, momentum, eps)
    if torch.compiler.is_exporting():  # what the operator writes to the side is no core operator's
        first = 0 if operator is torch.batch_norm else 2
        return fused.by_channel(x, first, call._replace(epilogue=PLAIN))
    if in_transform():  # where an operator cannot write to statistics that are shared
        running.track(*_statistics(operator, x))
        return operator(x, weight, bias, None, None, True, 0.0, eps, _CUDNN.enabled)
    # The operator writes the batch's statistics to the side: no value is read on the host.  Copies,
    # because it leaves them as they are if the batch is empty.
    mean, var = mean.clone(), var.clone()
    y = operator(x, weight, bias, mean, var, True, 1.0, eps, _CUDNN.enabled)
    running.track(mean, var)
    return y


def _has_other_strides(x: Tensor) -> bool:
    """Whether the strides of `x` are not those of channels_last, axes of size 1 included."""
    *positions, batch = accumulate((x.shape[1], *reversed(x.shape[2:])), mul)
    return x.stride() != (batch, 1, *reversed(positions))


def _track_in_place(
    operator: _Operator,
    x: Tensor,
    running: Running,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """The operator updates the statistics itself; what was not finite is put back."""
    mean, var, batches, _ = running
    before = torch.cat((mean, var))
    y = operator(x, weight, bias, mean, var, True, momentum, eps, False)
    count = 1
    if not math.isfinite(var.dot(var).item()):  # one number that any bad channel spoils
        finite = torch.isfinite(mean) & torch.isfinite(var)
        for statistic, old in zip((mean, var), before.chunk(2), strict=True):
            # .data: the operator kept both for its backward, which does not read them
            statistic.data.copy_(torch.where(finite, statistic, old))
        count = int(finite.any())
    if batches is not None:
        batches.add_(count)
    return y


def _statistics(operator: _Operator, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the operator would write: mean and unbiased variance, for instances their average."""
    positions = list(range(2, x.dim()))
    if operator is torch.batch_norm:
        var, mean = torch.var_mean(x.detach(), [0, *positions], correction=1)
        return mean, var
    var, mean = torch.var_mean(x.detach(), positions, correction=1)
    return mean.mean(0), var.mean(0)
