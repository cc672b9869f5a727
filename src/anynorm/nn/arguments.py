"""What a layer is built with: a signature with torch's arguments, and values that make a layer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

from anynorm import functional as F

__all__ = ["check_built_with", "signature_of", "twin_of"]


def signature_of(twin: type, own: Sequence[str]) -> Signature:
    """Return the signature of torch's class, with the arguments `own` behind it, by keyword.

    Tools read it: ``torch.nn.utils.skip_init``, configuration frameworks and editors.

    >>> import torch
    >>> str(signature_of(torch.nn.RMSNorm, ["activation"])).split(", ")[-1]
    'activation=None) -> None'
    """
    theirs = inspect.signature(twin)
    more = [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in own]
    return theirs.replace(parameters=[*theirs.parameters.values(), *more])


def twin_of(layer: type) -> type:
    """Return torch's class whose arguments a layer takes.

    >>> from anynorm import LayerNorm
    >>> twin_of(LayerNorm).__module__
    'torch.nn.modules.normalization'
    """
    return next(base for base in layer.__mro__ if base.__module__.startswith("torch.nn"))


def check_built_with(layer: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise `AnynormError` for values that make no layer; calls that torch refuses are left to it.

    >>> from anynorm import BatchNorm1d
    >>> check_built_with(BatchNorm1d, (3,), {"eps": 1e-5})
    """
    theirs = inspect.signature(twin_of(layer))
    try:
        bound = theirs.bind(*args, **kwargs).arguments
    except TypeError:
        return
    defaults = theirs.parameters
    given = {name: v for name, v in bound.items() if v is not defaults[name].default}
    F.check_arguments(layer.__name__, given)
    if "num_groups" in given and "num_channels" in given:
        F.check_groups(given["num_groups"], (1, given["num_channels"]))
