"""Freeze batch norms: their running statistics become constants."""

from __future__ import annotations

from torch import nn

from anynorm import nn as own
from anynorm.surgery.affine import eps_of
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.model import check_model
from anynorm.surgery.names import Layers
from anynorm.surgery.normalizers import Normalizer, named, normalizers
from anynorm.surgery.receipt import Log, Model, Result
from anynorm.surgery.refused import Refused
from anynorm.surgery.transaction import Trial, perform
from anynorm.surgery.transfer_hooks import succeed
from anynorm.surgery.unmatched import Search, may_keep
from anynorm.surgery.walk import put

__all__ = ["freeze", "frozen"]


def freeze(
    model: Model,
    example: Batch | None = None,
    *,
    affine: bool = True,
    layers: Layers | None = None,
    forward: Forward | None = None,
    inplace: bool = False,
    tolerance: float | None = 1e-5,
) -> Result[Model]:
    """Turn the batch norms of a model into :class:`anynorm.FrozenBatchNorm` with their statistics.

    They then use running statistics in training as in eval mode, also after ``train()``.  Names in
    the state dict, activations and hooks stay.

    Args:
        model: the model.
        example: an input, as a loader gives it, on which the outputs in eval mode are compared.
        affine: whether γ and β are frozen too; otherwise they stay the same parameters.
        layers: the layers to freeze: names, modules that contain them, or patterns (see
            :mod:`anynorm.surgery.names`); None for all.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).
        inplace: whether to change the model itself instead of a copy.
        tolerance: the largest relative difference of the outputs on the example; above it
            everything is undone.  None allows any.

    Returns:
        The model and the receipt.

    Raises:
        AnynormError: An entry of `layers` names no such layer, or the model cannot be copied, or
            called on the example.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        >>> freeze(model).model[1]
        FrozenBatchNorm(2, eps=1e-05)
    """
    check_model("freeze", model)

    def change(target: nn.Module, log: Log) -> nn.Module:
        log.search = Search("batch norms with running statistics", _why_not, may_keep(layers))
        for norm in named(_frozen_ones(target), layers, "have running statistics to freeze"):
            if norm.known:
                try:
                    new = succeed(norm.module, frozen(norm, affine=affine))
                except Refused as reason:
                    log.refuse(norm.name, str(reason))
                    continue
                target = put(target, norm.place, new)
                log.change(norm.name, "frozen" if affine else "statistics frozen")
            else:
                log.refuse(norm.name, norm.doubt)
        return target

    trial = None if example is None else Trial(example, forward, tolerance)
    return perform("freeze", model, change, trial, inplace=inplace)


def _frozen_ones(model: nn.Module) -> list[Normalizer]:
    """The layers that can be frozen: statistics are constant in eval mode but not in training."""
    return [norm for norm in normalizers(model) if not _why_not(norm)]


def _why_not(norm: Normalizer) -> str:
    """Why a layer cannot be frozen; "" if it can."""
    if norm.constant:
        return "frozen already"
    if not norm.keeps:
        return "no running statistics are kept, so there is nothing to freeze"
    if not norm.fixed:
        return "a covariance is kept, which FrozenBatchNorm has no place for"
    return "" if norm.spec.uses_batch else "each sample has statistics of its own in training"


def frozen(norm: Normalizer, *, affine: bool = True) -> own.FrozenBatchNorm:
    """A batch norm of constants that does what `norm`, with kept statistics, does in eval mode.

    Raises `Refused` where the statistics are not those of channels on axis 1.
    """
    module, (gain, shift) = norm.layer, norm.affine
    if module.running_mean.dim() != 1 or norm.takes_last_axis:
        raise Refused(f"its statistics are not of channels on axis 1: {norm.spec.pattern}")
    learned = norm.spec.learned
    if not affine and (learned.offset or learned.gain == "scalar"):
        raise Refused("FrozenBatchNorm stores γ itself, one for each channel: freeze γ and β too")
    new = own.FrozenBatchNorm(
        norm.channels,
        eps_of(norm),
        affine=gain is not None,
        trainable=not affine,
        activation=norm.activation,
        device=module.running_mean.device,
        dtype=module.running_mean.dtype,
    )
    new.running_mean.copy_(module.running_mean)
    new.running_var.copy_(module.running_var)
    for name, value in (("weight", gain), ("bias", shift)):
        if value is not None:
            constant = value.detach().to(getattr(module, name)).expand(norm.channels).clone()
            setattr(new, name, value if new.trainable else constant)
    return new
