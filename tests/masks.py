"""Masks, and the formula applied to each set of values that count by itself."""

import torch
from entries import corrected

from anynorm import functional as F
from anynorm.activations import ACTIVATIONS
from anynorm.spec import Spec

__all__ = ["alone", "lengths", "poisoned"]


def lengths(samples, positions, seed=0):
    """(N, L): the first few positions of each sample count, at least two."""
    made = torch.Generator().manual_seed(seed)
    found = torch.randint(2, positions + 1, (samples, 1), generator=made)
    return torch.arange(positions) < found


def poisoned(x, mask):
    """What must not be read is not a number or infinite."""
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=x.dtype)
    return torch.where(mask, x, bad[torch.arange(x.numel()) % 3].reshape(x.shape))


def alone(layer, x, residual, mask):
    """φ(γ · unit + β + residual) where `mask` is True, each unit from the values it is among.

    `mask` has the shape of `x`.  Returns it with each set's number, mean and variance.
    """
    plan, sizes = layer.spec.pattern.plan(x.dim()), layer.sizes
    shape = plan.view(tuple(x.shape), sizes)
    kept = [axis for axis in range(len(shape)) if axis not in plan.dims]
    order = [*kept, *plan.dims]
    sets = len(torch.empty([shape[axis] for axis in kept], device="meta").flatten())

    def rows(t):
        return t.reshape(shape).permute(order).reshape(sets, -1)

    values, valid = rows(x), rows(mask)
    units = [_unit(layer, row[there]) for row, there in zip(values, valid, strict=True)]
    unit = torch.zeros_like(values).index_put((valid,), torch.cat(units))
    moved = unit.reshape([shape[axis] for axis in order])
    unit = moved.permute([order.index(axis) for axis in range(len(order))]).reshape(x.shape)
    after = [1] * (x.dim() - plan.first - len(layer.channels))
    weight, bias = (
        other if p is None else p.reshape(*p.shape, *after)
        for p, other in ((layer.weight, 1.0), (layer.bias, 0.0))
    )
    if layer.weight is not None:
        weight = layer.spec.learned.offset + weight
    phi = ACTIVATIONS[layer.activation or "identity"].forward
    y = phi(unit * weight + bias + torch.where(mask, residual, 0))
    spread = [_moments(layer, row[there]) for row, there in zip(values, valid, strict=True)]
    return torch.where(mask, y, 0), spread


def _unit(layer, values):
    """(x − μ) / σ of one set of values."""
    if not len(values) or layer.spec.is_identity:
        return values
    own = layer.spec
    spec = Spec.of("... [c]", center=own.center, scale=own.scale, dialect=own.dialect)
    unit = F.normalize(values[None], spec, eps=layer.eps)[0]
    return unit if own.source == "batch" else corrected(unit, values, (0,), own.source)


def _moments(layer, values):
    """The number, mean and s² (for the standard deviation unbiased) of one set."""
    if len(values) < 2:
        return len(values), values.sum().item(), 0.0
    if layer.spec.is_standard:
        return len(values), values.mean().item(), values.var().item()
    spread = F.scale_of(values, Spec.of("[n]", scale=layer.spec.scale), 0.0).square().item()
    return len(values), values.mean().item(), spread
