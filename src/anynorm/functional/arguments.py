"""Rules for arguments by name, shared by layers and functions.

Functions check the rules only after a call has failed, so that correct calls are not slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anynorm.errors import AnynormError
from anynorm.ops.checks import need_real
from anynorm.ops.formula import SIXTEEN_BITS

__all__ = ["check_arguments", "explain", "need_tensor"]


class _Rule(NamedTuple):
    """A test of a value, and the rule as text."""

    fits: Callable[[Any], bool]
    text: str


def check_arguments(owner: str, given: Mapping[str, Any]) -> None:
    """Raise an error if a value breaks the rule of its argument.

    Arguments without a rule are not checked.

    Args:
        owner: the name of the layer or function in the error.
        given: the values by the names of the arguments.

    Raises:
        AnynormError: A value breaks its rule.

    Example:
        >>> check_arguments("BatchNorm1d", {"num_features": 3, "eps": 1e-5, "momentum": None})
    """
    for name, value in given.items():
        if name in _RULES and not _RULES[name].fits(value):
            shown = f"={value!r}" if isinstance(value, _SHOWN) else f" is {_described(value)}"
            raise AnynormError(f"{owner}: {name}{shown}; {name} {_RULES[name].text}.")


def explain(function: str, /, **given: Any) -> None:
    """Raise an error if the arguments are the reason why a call failed.

    If they are not, it returns, and the caller raises the original error.

    Args:
        function: the name of the function in the error.
        given: the arguments by name, the input first.

    Raises:
        AnynormError: An argument has a wrong type, value, device or data type.

    Example:
        >>> explain("rms_norm", x=torch.zeros(2), weight=torch.ones(2), eps=1e-5)
        >>> explain("rms_norm", x=torch.zeros(2, dtype=torch.int64))
        Traceback (most recent call last):
            ...
        anynorm.errors.AnynormError: normalization takes real floating-point numbers, ...
    """
    for name, value in given.items():
        if name in _TENSORS:
            need_tensor(function, name, value, optional=name not in _INPUTS)
    check_arguments(function, given)
    x = next(iter(given.values()))
    if not isinstance(x, Tensor):
        return
    need_real(x)
    for name, value in given.items():
        if isinstance(value, Tensor) and name in _PARAMETERS:
            _need_alike(function, x, name, value)


def need_tensor(owner: str, name: str, value: Any, *, optional: bool = False) -> None:
    """Raise an error if a value is not a tensor; the message says how to make one.

    Classes with ``__torch_function__``, which act as tensors, are accepted.

    Args:
        owner: the name of the layer or function in the error.
        name: the name of the argument.
        value: the value.
        optional: whether None is accepted.

    Raises:
        AnynormError: The value is not a tensor.

    Example:
        >>> need_tensor("BatchNorm1d", "input", torch.zeros(2))
    """
    if isinstance(value, Tensor) or (value is None and optional):
        return
    if hasattr(type(value), "__torch_function__"):  # it acts as a tensor
        return
    rule = f"{name} must be a torch.Tensor" + (" or None" if optional else "")
    raise AnynormError(f"{owner}: {name} is {_described(value)}; {rule}. {_fix(name, value)}")


def _described(value: Any) -> str:
    if value is None:
        return "None"
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}."
    shape = getattr(value, "shape", None)
    return f"of type {module}{kind.__qualname__}" + (f", shape {shape}" if shape else "")


def _fix(name: str, value: Any) -> str:
    if value is None:
        return "If a module or function made it, that must return its result."
    if isinstance(value, Mapping) or hasattr(value, "to_tuple"):
        return f"Give one of the tensors in it, such as {name}['key']."
    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        return f"Give one of the tensors in it, or torch.stack({name})."
    if isinstance(value, (bool, int, float, list, tuple)) or hasattr(value, "__array__"):
        return f"Give torch.as_tensor({name})."
    return "Give a tensor of real floating-point numbers."


def _need_alike(function: str, x: Tensor, name: str, value: Tensor) -> None:
    if value.device != x.device:
        raise AnynormError(
            f"{function}: {name} is on {value.device}, but the input is on {x.device}; they must "
            f"be on the same device. Move one of them with .to({str(x.device)!r})."
        )
    wide = value.dtype == torch.float32 and x.dtype in SIXTEEN_BITS
    if value.dtype != x.dtype and not wide:
        raise AnynormError(
            f"{function}: {name} is {value.dtype}, but the input is {x.dtype}; they must have the "
            "same type (for 16-bit inputs also float32). Convert the input with "
            f"x.to({value.dtype}), or the layer with layer.to({x.dtype})."
        )


def _is_count(value: Any) -> bool:
    if isinstance(value, torch.SymInt):
        return True
    if isinstance(value, Tensor):
        return False
    try:
        return index(value) >= 1
    except TypeError:
        return False


def _is_shape(value: Any) -> bool:
    """Whether a value is a size or a sequence of sizes."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(map(_is_count, value))
    return _is_count(value)


def _is_filled_shape(value: Any) -> bool:
    return _is_shape(value) and not (isinstance(value, Sequence) and not value)


def _is_number(value: Any, low: float, high: float) -> bool:
    if isinstance(value, torch.SymFloat):
        return True
    try:
        return low <= float(value) <= high and math.isfinite(value) and not isinstance(value, str)
    except (TypeError, ValueError):
        return False


_SHOWN = (str, int, float, complex, bool, list, tuple, dict, type(None))
_INPUTS = ("input", "x")
_PARAMETERS = ("weight", "bias", "running_mean", "running_var")
_TENSORS = {*_INPUTS, *_PARAMETERS, "num_batches_tracked"}

_COUNT = _Rule(_is_count, "must be an integer, 1 or more")
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        (
            "num_features",
            "num_channels",
            "num_groups",
            "in_features",
            "out_features",
            "in_channels",
            "out_channels",
        ),
        _COUNT,
    ),
    "activation": _Rule(
        lambda value: value is None or isinstance(value, str) or callable(value),
        "must be a name in anynorm.activations.ACTIVATIONS, a function or None",
    ),
    "channels": _Rule(_is_shape, "must be an integer, 1 or more, or a sequence of such integers"),
    "normalized_shape": _Rule(
        _is_filled_shape, "must be the size of the last axis, or the sizes of the last axes"
    ),
    "eps": _Rule(
        lambda value: _is_number(value, 0.0, math.inf),
        "must be positive or 0, and finite",
    ),
    "alpha_init": _Rule(
        lambda value: _is_number(value, -math.inf, math.inf), "must be a finite number"
    ),
    "momentum": _Rule(
        lambda value: value is None or _is_number(value, 0.0, 1.0),
        "must be the weight of the newest batch, from 0 to 1, or None for the average of all",
    ),
}
