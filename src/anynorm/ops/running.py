"""The update of running statistics, guarded against values that are not finite."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anynorm import kernels
from anynorm.errors import AnynormError
from anynorm.ops.merge import merge
from anynorm.ops.registry import define, implement, in_front, in_transform

__all__ = ["Running", "plain_eager"]

_OWN = kernels.available()

_SCHEMA = (
    "(Tensor(a!) mean, Tensor(b!) var, Tensor(c!)? count, Tensor batch_mean, "
    "Tensor batch_var, float? momentum, float correction) -> ()"
)
_TRACK = define(f"track_{_SCHEMA}")
_FORMULA = define(f"track_formula_{_SCHEMA}")  # what a device's kernel calls where it cannot serve


class Running(NamedTuple):
    """The running statistics of a layer, updated in place.

    Args:
        mean: the running mean, of the shape of γ.
        var: the running variance, of the shape of γ; for whitening the covariance.
        batches: the number of batches so far, or None where nobody counts.
        momentum: the weight of the newest batch.  None asks for the cumulative average, weight
            1/`batches`, and needs `batches`.

    Example:
        >>> running = Running(torch.zeros(2), torch.ones(2), None, momentum=0.5)
        >>> running.track(torch.full((2,), 4.0), torch.full((2,), 3.0))
        >>> running.mean, running.var
        (tensor([2., 2.]), tensor([2., 2.]))
    """

    mean: Tensor
    var: Tensor
    batches: Tensor | None
    momentum: float | None

    def track(self, batch_mean: Tensor, batch_var: Tensor, correction: float = 1.0) -> None:
        """Take in one batch, except where it is not finite and while a graph is recomputed.

        `correction` is a factor of the variance, Bessel's for one.
        """
        if recomputing():
            return
        batch_mean, batch_var = batch_mean.detach(), batch_var.detach()
        plain = plain_eager(self.mean)
        if plain and not _OWN and self._move(batch_mean, batch_var, correction):
            return
        on_gpu = self.mean.is_cuda and kernels.cuda.enabled() and not torch.compiler.is_exporting()
        own = (plain and _OWN and self.momentum is not None) or on_gpu
        update = _TRACK if own or in_transform() else _update
        update(*self[:3], batch_mean, batch_var, self.momentum, correction)

    def _move(self, batch_mean: Tensor, batch_var: Tensor, correction: float) -> bool:
        """Update without masks if the batch is finite; return whether it was."""
        # A finite float64 may be too large for the running statistics: converted, it shows.
        mean, var = batch_mean.to(self.mean.dtype), (batch_var * correction).to(self.var.dtype)
        if self.momentum is None or not math.isfinite(mean.sum().item() + var.sum().item()):
            return False
        if self.batches is not None:
            self.batches.add_(1)
        self.mean.lerp_(mean, self.momentum)
        self.var.lerp_(var, self.momentum)
        return True


def recomputing() -> bool:
    """Whether this forward is activation checkpointing's second, inside a backward pass."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def plain_eager(buffer: Tensor) -> bool:
    """Whether values may be read at once: an ordinary CPU buffer, no tracing, a first forward."""
    return (
        not torch.compiler.is_compiling()
        and type(buffer) is Tensor
        and buffer.is_cpu
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._current_graph_task_id() == -1
        and torch._C._len_torch_dispatch_stack() == 0
    )


def _update(
    mean: Tensor,
    var: Tensor,
    count: Tensor | None,
    batch_mean: Tensor,
    batch_var: Tensor,
    momentum: float | None,
    correction: float,
) -> None:
    batch_mean, batch_var = batch_mean.to(mean.dtype), (batch_var * correction).to(var.dtype)
    channels, spread = _usable(batch_mean, batch_var)
    if count is not None:  # a batch without a finite channel is not counted
        seen = channels.any() if count.dim() == 0 else channels.flatten(1).any(1)
        count.clamp_(min=0).add_(seen.reshape(count.shape))  # below 0 it is no count
    weight = momentum if momentum is not None else _cumulative(count)
    for running, batch, usable in ((mean, batch_mean, channels), (var, batch_var, spread)):
        moved = _between(running, batch, _beside(weight, running))
        running.copy_(torch.where(usable, moved, running))


def _between(running: Tensor, batch: Tensor, weight: float | Tensor) -> Tensor:
    """Move `running` towards `batch` by `weight`, exactly to it by 1.

    The difference is taken from the nearer end, since a batch that is much smaller than what it
    replaces would cancel, and 16-bit types are computed in float32.
    """
    wide = torch.promote_types(running.dtype, torch.float32)
    start, end = running.to(wide), batch.to(wide)
    if isinstance(weight, Tensor):
        weight = weight.to(wide)
    return torch.lerp(start, end, weight).to(running.dtype)


def _usable(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Which channels (for covariances: which groups of them) have finite statistics."""
    if mean.shape == var.shape:
        finite = torch.isfinite(mean) & torch.isfinite(var)
        return finite, finite
    groups = torch.isfinite(var).all(-1).all(-1)
    return groups.repeat_interleave(var.shape[-1], -1), groups[..., None, None]


def _beside(weight: float | Tensor, running: Tensor) -> float | Tensor:
    """A weight for each model of an ensemble, shaped to broadcast against its statistics."""
    if not isinstance(weight, Tensor) or weight.dim() == 0:
        return weight
    return weight.reshape(-1, *[1] * (running.dim() - 1))


def _cumulative(count: Tensor | None) -> Tensor:
    if count is None:
        raise AnynormError(
            "momentum=None averages over all batches and needs num_batches_tracked, which is None. "
            "Give the count, or a momentum."
        )
    return count.to(torch.float64).reciprocal()


def _vmap(info: Any, in_dims: Any, *args: Any) -> Any:
    """Per-model statistics stay per model; shared ones take in the pool of all models' batches."""
    *tensors, momentum, correction = args
    if in_dims[0] is None:
        pooled = _pool([tensors[3], tensors[4] * correction], in_dims[3:5])
        _TRACK(*tensors[:3], *pooled, momentum, 1.0)
    else:
        pairs = zip(tensors, in_dims, strict=False)
        front = (in_front(tensor, axis, info.batch_size) for tensor, axis in pairs)
        _TRACK(*front, momentum, correction)
    return None, None


def _pool(batch: list[Tensor], axes: tuple[int | None, ...]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the union of equally large batches."""
    means, variances = (
        t.unsqueeze(0) if axis is None else t.movedim(axis, 0)
        for t, axis in zip(batch, axes, strict=True)
    )
    if means.shape[1:] == variances.shape[1:]:
        number, mean, squares = merge(torch.ones_like(means), means, variances)
        return mean, squares / number
    # Covariances, of channels in groups.
    mean = means.mean(0)
    away = (means - mean).reshape(-1, *variances.shape[1:-1])
    return mean, variances.mean(0) + torch.einsum("vgc,vgd->gcd", away, away) / len(away)


for op in (_TRACK, _FORMULA):
    implement(op, _update, lambda *_: None)
torch.library.register_vmap("anynorm::track_", _vmap)
