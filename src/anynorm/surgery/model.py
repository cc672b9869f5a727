"""The check that all verbs share: whether their argument is a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from anynorm.errors import AnynormError, listed

__all__ = ["check_model", "need_shapes", "need_values"]


def check_model(verb: str, model: object, name: str = "model") -> None:
    """Raise `AnynormError` if `model` is not a module; the message says how to get one.

    >>> check_model("fold", nn.Linear(2, 2))
    """
    if isinstance(model, nn.Module):
        return
    raise AnynormError(
        f"{verb}: {name} is {_described(model)}; {name} must be a torch.nn.Module. {_fix(model)}"
    )


def _described(given: object) -> str:
    if given is None:
        return "None"
    if isinstance(given, (str, PurePath)):
        return f"the text {str(given)!r}"
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return f"of type {type(given).__name__}"


def _fix(given: Any) -> str:
    return next(fix(given) for applies, fix in _FIXES if applies(given))


def _are_modules(given: Any) -> bool:
    return isinstance(given, (list, tuple)) and all(isinstance(one, nn.Module) for one in given)


_FIXES: tuple[tuple[Callable[[Any], bool], Callable[[Any], str]], ...] = (
    (
        lambda given: given is None,
        lambda _: "If a function made it, that function must return the model.",
    ),
    (
        lambda given: isinstance(given, (str, PurePath)),
        lambda _: (
            "Build the model of this name and give the model; only the command line takes "
            "package.module:factory."
        ),
    ),
    (
        lambda given: isinstance(given, type),
        lambda given: f"Give an instance: {given.__name__}(...).",
    ),
    (
        lambda given: isinstance(getattr(given, "model", None), nn.Module),  # a verb's result
        lambda _: "Give its attribute .model.",
    ),
    (
        lambda given: isinstance(given, Mapping),
        lambda _: "Build the model, load this into it with model.load_state_dict, and give it.",
    ),
    (
        lambda given: isinstance(given, Optimizer),
        lambda _: "Give the model whose parameters it trains.",
    ),
    (_are_modules, lambda _: "Give torch.nn.Sequential(*modules), or one of the modules."),
    (callable, lambda _: "Call it, and give the model that it returns."),
    (lambda _: True, lambda _: "Give the model itself."),
)


def need_values(model: nn.Module) -> None:
    """Raise `AnynormError` for a model whose tensors are on the meta device, or are sharded."""
    named = [*model.named_parameters(), *model.named_buffers()]
    if empty := [name for name, tensor in named if tensor.is_meta]:
        raise AnynormError(
            f"{listed(empty)} of the model have no values: they are on the meta device. Load the "
            "weights first, or leave out what needs outputs, such as the example."
        )
    # What a DTensor is has no test without importing torch.distributed.tensor.
    if sharded := [name for name, tensor in named if hasattr(tensor, "full_tensor")]:
        raise AnynormError(
            f"{listed(sharded)} of the model are sharded over processes. Give the model before it "
            "is sharded, such as before fully_shard()."
        )


def need_shapes(model: nn.Module) -> None:
    """Raise `AnynormError` for a model with lazy parameters or buffers, which have no shape yet."""
    if any(map(is_lazy, [*model.parameters(), *model.buffers()])):
        raise AnynormError(
            "the model has lazy parameters, which have no shape yet. Call it once, model(x), first."
        )
