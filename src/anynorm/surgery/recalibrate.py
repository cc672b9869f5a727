"""Recompute running statistics: those of all inputs that the layers get in eval mode."""

from __future__ import annotations

from collections.abc import Iterable

from torch import distributed as dist
from torch import nn

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.model import check_model
from anynorm.surgery.names import Layers
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.recalibrating.layers import start_anew
from anynorm.surgery.recalibrating.passes import recompute
from anynorm.surgery.receipt import Log, Model, Result
from anynorm.surgery.transaction import perform
from anynorm.surgery.unmatched import Search, may_keep

__all__ = ["recalibrate", "recompute", "start_anew"]


def recalibrate(
    model: Model,
    batches: Iterable[Batch],
    *,
    passes: int | None = None,
    forward: Forward | None = None,
    layers: Layers | None = None,
    group: dist.ProcessGroup | None = None,
    memory: float | None = None,
    progress: bool = False,
    inplace: bool = False,
) -> Result[Model]:
    """Recompute the running statistics of a model from batches, whatever their sizes.

    Batch norm gets the mean and the unbiased variance of all values that reach it, pooled in
    float64 over batches, positions, calls and, if a process group runs, ranks.  If the model passes
    a mask to the layer, masked values do not count.  The model is in eval mode, dropout too, so
    batches may have any size, even one.  The result is the same as for the whole data set in one
    batch, however it is split.  Statistics other than mean and variance (whitening, L1, ghost, ...)
    are averaged over the batches, weighted by their sizes.

    One pass over the batches is enough: all batches wait in front of each layer until its
    statistics are known.  What their forward passes keep meanwhile must fit into `memory`.  If it
    does not, as many batches as fit wait together, and passes are repeated until the statistics do
    not change: each pass settles one more layer, until all batches fit in front of the others.  The
    result is the same.  Passes are also repeated where a layer is called several times, since its
    inputs may depend on its own statistics.

    On batches of another domain this is AdaBN.  Modes, momentum and random state do not change.

    Args:
        model: the model, in any mode.
        batches: inputs, as a loader gives them.  For an iterator that can be used only once there
            is a single pass.
        passes: the largest number of passes; None to continue until the statistics do not change.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).
        layers: the layers to recalibrate: names, modules that contain them, or patterns (see
            :mod:`anynorm.surgery.names`); None for all.
        group: the process group whose ranks are pooled; None for the default group.
        memory: the bytes that waiting batches may keep; None for half of the free memory.  With 0,
            one batch after the other goes through the model.
        progress: whether to show the progress on standard error, and before it starts what waiting
            batches will keep.
        inplace: whether to change the model itself instead of a copy.

    Returns:
        The model and the receipt.

    Raises:
        AnynormError: There are no batches, the model cannot be called on them, new statistics are
            not finite, `passes` or `memory` is too small, or an entry of `layers` names no layer
            with statistics.  The model is then not changed.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [6.0]])
        >>> result = recalibrate(nn.BatchNorm1d(1), [x[:2], x[2:]])
        >>> result.model.running_mean.item(), result.model.running_var.item()
        (3.0, 7.0)

    Reference:
        Li et al. 2016, arXiv:1603.04779 (AdaBN).
    """
    check_model("recalibrate", model)
    if passes is not None and passes < 1:
        raise AnynormError(
            f"passes={passes}; give 1 or more, or None to continue until nothing changes."
        )
    if memory is not None and not memory >= 0:
        raise AnynormError(
            f"memory={memory}; give the bytes that waiting batches may keep, 0 for one batch at a "
            "time, or None for half of the free memory."
        )

    def change(target: nn.Module, log: Log) -> nn.Module:
        log.search = Search("layers with running statistics", _why_not, may_keep(layers))
        recompute(
            target,
            batches,
            log,
            passes=passes,
            forward=forward,
            layers=layers,
            group=group,
            memory=memory,
            progress=progress,
        )
        return target

    return perform("recalibrate", model, change, None, inplace=inplace)


def _why_not(norm: Normalizer) -> str:
    """Why a layer has no statistics to recompute; "" if it has."""
    if norm.constant:
        return "its statistics are frozen: recalibrate before freezing"
    return "" if norm.keeps else "it has no running statistics"
