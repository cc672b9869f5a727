"""The normalizers of a file as layers, so that the doctor's checks and the manifest read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from anynorm import nn as own
from anynorm.audit.file_norm import FileNorm
from anynorm.catalogue import entry
from anynorm.surgery.normalizers import Normalizer, normalizer
from anynorm.surgery.walk import Place

__all__ = ["rebuilt"]

_LEAST = 1e-30  # our layers need an ε above 0


def rebuilt(norms: Sequence[FileNorm]) -> tuple[nn.Module, list[Normalizer]]:
    """Return a model that holds a layer for each normalizer, and their descriptions.

    A normalizer of which the file does not say the size has no layer.
    """
    model = nn.Module()
    found: list[Normalizer] = []
    for norm in norms:
        layer = _layer(norm)
        if layer is None:
            continue
        _put(model, norm.layer, layer)
        described = normalizer(Place(layer.train(norm.training), (norm.layer,)))
        assert described is not None
        found.append(described)
    return model, found


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer at its name; on the way are empty modules, or other normalizers."""
    *parents, last = name.split(".")
    for part in parents:
        if part not in model._modules:
            model.add_module(part or "-", nn.Module())
        model = model._modules[part or "-"]  # type: ignore[assignment]
    model._modules[last or "-"] = layer


def _layer(norm: FileNorm) -> nn.Module | None:
    tensors = [t for t in (norm.gain, norm.bias, norm.mean, norm.variance) if t is not None]
    if not tensors and not norm.shape:
        return None
    layer: nn.Module = _empty(norm, tensors[0].numel() if tensors else 0)
    values = {"weight": norm.gain, "bias": norm.bias}
    if norm.family == "batch" or norm.mean is not None:
        statistics = {"running_mean": norm.mean, "running_var": norm.variance}
        for name, value in {**statistics, "num_batches_tracked": norm.batches}.items():
            layer._buffers[name] = value
        vars(layer)["track_running_stats"] = norm.mean is not None
    for name, value in values.items():
        layer._parameters[name] = None if value is None else _parameter(value, norm, name)
    return layer


def _parameter(value: Tensor, norm: FileNorm, name: str) -> nn.Parameter:
    stored = value if norm.shape else value.flatten()
    if name == "weight" and norm.offset:
        stored = stored - norm.offset
    return nn.Parameter(stored, requires_grad=False)


def _empty(norm: FileNorm, channels: int) -> Any:
    if norm.family == "batch":
        return nn.BatchNorm2d(channels, norm.eps or 0.0, norm.momentum)
    if norm.family == "instance":
        return nn.InstanceNorm2d(channels, norm.eps or 0.0, affine=True)
    if norm.family == "group":
        groups = norm.groups if norm.groups and channels % norm.groups == 0 else 1
        return nn.GroupNorm(groups, channels, norm.eps or 0.0)
    if norm.offset:
        spec = entry(norm.family).spec
        learned = replace(spec.learned, offset=norm.offset)
        return own.Norm(replace(spec, learned=learned), channels, eps=norm.eps or _LEAST)
    shape = norm.shape or (channels,)
    if norm.family == "layer":
        return nn.LayerNorm(shape, norm.eps or 0.0)
    return nn.RMSNorm(shape, norm.eps)
