"""Running statistics: one launch for a layer; NaN and infinite statistics are left out."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from anynorm.kernels.triton.launch_plan import on_device_of

__all__ = ["track"]

_BLOCK = 1024


def track(
    mean: Tensor,
    var: Tensor,
    batch_mean: Tensor,
    batch_var: Tensor,
    count: Tensor | None,
    momentum: float | None,
    correction: float,
) -> None:
    """Move the running statistics towards those of a batch; all tensors have the same shape.

    Without a `momentum` the weight is 1 / `count`.  The count increases by one if any statistic of
    the batch is finite.
    """
    block = min(_BLOCK, triton.next_power_of_2(max(1, mean.numel())))
    tensors = (mean, var, batch_mean, batch_var, count)
    with on_device_of(mean.device):
        # One warp: no thread can read the count after another has raised it.
        _track[(1,)](*tensors, mean.numel(), momentum, correction, BLOCK=block, num_warps=1)


@triton.jit
def _batch(mean, var, batch_mean, batch_var, correction, place, inside):
    """Return the statistics of the batch in the type of the running ones, and which are finite."""
    m = _rounded(tl.load(batch_mean + place, mask=inside, other=0), mean)
    v = tl.load(batch_var + place, mask=inside, other=0).to(tl.float64) * correction
    v = _rounded(v, var)
    # x − x is zero if and only if x is finite.
    return m, v, inside & (m - m == 0) & (v - v == 0)


@triton.jit
def _rounded(values, pointer):
    return _wide(_wide(values, pointer).to(pointer.dtype.element_ty), pointer)


@triton.jit
def _wide(values, pointer):
    """Return values in the type of the computation: 16-bit arithmetic would lose digits."""
    return values.to(tl.float64 if pointer.dtype.element_ty == tl.float64 else tl.float32)


@triton.jit
def _track(
    mean, var, batch_mean, batch_var, count, size, momentum, correction, BLOCK: tl.constexpr
):
    if count is not None:
        batches = tl.load(count)
    seen = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        _, _, usable = _batch(mean, var, batch_mean, batch_var, correction, place, place < size)
        seen = seen | usable.to(tl.int32)
    if count is not None:
        batches = tl.maximum(batches, 0) + tl.max(seen, 0)  # a negative count is invalid
        tl.store(count, batches)
    weight = 1.0 / batches.to(tl.float64) if momentum is None else momentum
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        m, v, usable = _batch(mean, var, batch_mean, batch_var, correction, place, place < size)
        _move(mean + place, m, usable, weight)
        _move(var + place, v, usable, weight)


@triton.jit
def _move(pointer, batch, usable, weight):
    old = _wide(tl.load(pointer, mask=usable, other=0), pointer)
    # Start from the nearer end: otherwise a result that is much smaller would cancel.
    away, weight = batch - old, _wide(weight + tl.zeros_like(batch), pointer)
    moved = tl.where(weight < 0.5, old + weight * away, batch - (1.0 - weight) * away)
    tl.store(pointer, moved, mask=usable)
