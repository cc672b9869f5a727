"""The epilogue after γ and β: a residual, and φ as a name, a function or None."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anynorm.activations import activation as named_activation
from anynorm.errors import AnynormError
from anynorm.functional.arguments import need_tensor
from anynorm.ops import PLAIN, Epilogue
from anynorm.ops.checks import check_residual

__all__ = [
    "Activation",
    "activate",
    "activation_name",
    "check_activation",
    "following",
]

Function = Callable[[Tensor], Tensor]
Activation = str | Function | None


def activate(y: Tensor, activation: Activation) -> Tensor:
    """Apply φ to a tensor.

    Args:
        y: the tensor.
        activation: a name in :data:`anynorm.activations.ACTIVATIONS`, a function, or None for the
            identity.

    Shape:
        - y: any
        - output: that of `y`, if the function keeps it

    Returns:
        φ(y).

    Raises:
        AnynormError: `y` is not a tensor.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> activate(torch.tensor([-1.0, 2.0]), "relu")
        tensor([0., 2.])
    """
    if not isinstance(y, Tensor):
        need_tensor("activate", "y", y)
    if activation is None:
        return y
    return named_activation(activation).forward(y) if isinstance(activation, str) else activation(y)


def following(
    x: Tensor, residual: Tensor | None, activation: Activation
) -> tuple[Epilogue, Function | None]:
    """Return the epilogue of an operator on `x`, and φ if it is a function to call afterwards.

    An empty epilogue is `PLAIN` itself.  Raises an error if the residual does not fit `x`, or if
    the activation is not valid.
    """
    if residual is not None:
        check_residual(x, residual)
    if activation is not None:
        check_activation(activation)
    if not isinstance(activation, str):
        return PLAIN if residual is None else Epilogue(residual), activation
    nothing = residual is None and activation == "identity"
    return PLAIN if nothing else Epilogue(residual, activation), None


def check_activation(activation: Activation) -> None:
    """Raise an error if a value is not an activation.

    Args:
        activation: the value.  A name in :data:`anynorm.activations.ACTIVATIONS`, a function and
            None are valid.

    Raises:
        UnknownNameError: There is no activation with this name.
        AnynormError: The value is neither a name nor a function, or is a class.

    Example:
        >>> check_activation("relu")
        >>> check_activation(torch.nn.ReLU)
        Traceback (most recent call last):
            ...
        anynorm.errors.AnynormError: activation=ReLU is a class; φ is a function. ...
    """
    if isinstance(activation, str):
        named_activation(activation)
    elif isinstance(activation, type):  # calling it would build a layer, not apply one
        name = activation.__name__
        raise AnynormError(
            f"activation={name} is a class; φ is a function. Give an instance: {name}()."
        )
    elif activation is not None and not callable(activation):
        raise AnynormError(
            f"activation={activation!r} is neither a name nor a function. Try activation='relu'."
        )


def activation_name(activation: Activation) -> str:
    """Return the text of an activation in `repr`.

    Args:
        activation: a name, a function or None.

    Returns:
        The quoted name, or the name of the function; empty for None, and for a module, which
        `repr` shows anyway.

    Example:
        >>> activation_name("relu"), activation_name(torch.relu), activation_name(None)
        ("'relu'", 'relu', '')
    """
    if activation is None or isinstance(activation, torch.nn.Module):  # `repr` shows modules
        return ""
    return repr(activation) if isinstance(activation, str) else _function_name(activation)


def _function_name(function: Callable[[Tensor], Tensor]) -> str:
    return getattr(function, "__name__", type(function).__name__)
