"""Modules of other classes that compute a normalizer, and anynorm's layer for each."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anynorm import nn as own
from anynorm.ops.formula import SIXTEEN_BITS
from anynorm.surgery.normalizers import normalizer
from anynorm.surgery.recognize import Recognition, is_vector, recognize
from anynorm.surgery.refused import Refused
from anynorm.surgery.walk import Place, walk

__all__ = ["candidates", "recognized"]


def candidates(model: nn.Module) -> list[Place]:
    """Return the modules that may normalize and whose class does not say how.

    They are subclasses of known layers, and modules of neither torch nor anynorm without children
    and with no other parameters than vectors.
    """
    return [place for place in walk(model) if _may_normalize(place)]


def _may_normalize(place: Place) -> bool:
    norm = normalizer(place)
    if norm is not None:
        return not norm.known
    module = place.module
    if any(map(is_lazy, module.parameters())):
        return False
    foreign = type(module).__module__.partition(".")[0] not in ("torch", "anynorm")
    vectors = all(map(is_vector, module.parameters()))
    return foreign and vectors and not list(module.children())


def recognized(module: nn.Module, x: Tensor | None) -> own.Norm | None:
    """Return anynorm's layer for a module with the input `x`, with the module's own parameters.

    None for a module that does not normalize.

    Raises:
        Refused: The module normalizes, and no layer would do exactly the same.
    """
    if x is None or not x.is_floating_point():
        return None
    found = recognize(module, x)
    if found.spec is None:
        if found.normalizes:
            raise Refused(f"it normalizes, but {' and '.join(found.evidence)}")
        return None
    if not found.exact and x.dtype in SIXTEEN_BITS:
        raise Refused(f"anynorm rounds otherwise: {found.evidence[-1]}")
    layer = _layer(found, x)
    for name, stored in (("weight", found.weight), ("bias", found.bias)):
        if stored is not None:
            _hand_over(module.get_parameter(stored), stored, layer, name)
    return layer


def _layer(found: Recognition, x: Tensor) -> own.Norm:
    assert found.spec is not None
    first = found.spec.pattern.plan(x.dim()).first
    options: dict[str, Any] = {"eps": found.eps, "device": "meta", **(found.sizes or {})}
    # What was recognized keeps no statistics.
    return own.Norm(found.spec, x.shape[first], track_running_stats=False, **options)


def _hand_over(parameter: nn.Parameter, stored: str, layer: own.Norm, name: str) -> None:
    """Let `layer` have a module's parameter, if the state dict stays as it is."""
    shape = tuple(getattr(layer, name).shape)
    if stored != name or tuple(parameter.shape) != shape:
        raise Refused(
            f"its parameter '{stored}' of shape {tuple(parameter.shape)} would be '{name}' of "
            f"shape {shape} in the state dict"
        )
    setattr(layer, name, parameter)
