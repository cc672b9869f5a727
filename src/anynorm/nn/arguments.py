"""What a layer is built with: a signature with torch's arguments, and values that make a layer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from operator import index
from typing import Any

import torch

from anynorm import functional as F
from anynorm.errors import AnynormError

__all__ = ["check_arguments", "signature_of"]

_COUNTS = ("num_features", "num_channels", "num_groups")


def signature_of(twin: type, own: Sequence[str]) -> Signature:
    """Return the signature of torch's class, with the arguments `own` behind it, by keyword.

    Tools read it: ``torch.nn.utils.skip_init``, configuration frameworks and editors.

    >>> str(signature_of(torch.nn.RMSNorm, ["activation"])).split(", ")[-1]
    'activation=None) -> None'
    """
    theirs = inspect.signature(twin)
    more = [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in own]
    return theirs.replace(parameters=[*theirs.parameters.values(), *more])


def check_arguments(layer: str, given: Mapping[str, Any]) -> None:
    """Raise `AnynormError` for values that make no layer: what was given, the rule, what to give.

    >>> check_arguments("BatchNorm1d", {"num_features": 3, "eps": 1e-5, "momentum": None})
    """
    for name in _COUNTS:
        if name in given and not _is_count(given[name]):
            raise _refused(layer, name, given[name], "is a whole number from 1 on")
    if given.get("eps") is not None and not _is_number(given["eps"], 0.0, math.inf):
        raise _refused(layer, "eps", given["eps"], "must be positive or 0, and finite")
    if given.get("momentum") is not None and not _is_number(given["momentum"], 0.0, 1.0):
        rule = "is the weight of the newest batch, from 0 to 1, or None for the average of all"
        raise _refused(layer, "momentum", given["momentum"], rule)
    if "num_groups" in given and "num_channels" in given:
        F.check_groups(given["num_groups"], (1, given["num_channels"]))


def _is_count(value: Any) -> bool:
    if isinstance(value, torch.SymInt):
        return True
    try:
        return index(value) >= 1
    except TypeError:
        return False


def _is_number(value: Any, low: float, high: float) -> bool:
    if isinstance(value, torch.SymFloat):
        return True
    try:
        return low <= float(value) <= high and math.isfinite(value) and not isinstance(value, str)
    except (TypeError, ValueError):
        return False


def _refused(layer: str, name: str, value: Any, rule: str) -> AnynormError:
    return AnynormError(f"{layer}: {name}={value!r}; {name} {rule}.")
