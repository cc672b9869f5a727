"""How each module of a model is called on an example: how often, with what, and what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from anynorm.surgery.batches import Batch, Forward, call
from anynorm.surgery.modes import evaluating
from anynorm.surgery.refused import Refused

__all__ = ["Called", "observe_calls", "without_values"]


@dataclass
class Called:
    """The calls of a module.

    `given` has the arguments of the first call by their names, and `outputs` what each call
    returned; tensors are on the meta device.  `given` is None if there is no call, or if an
    argument has no name.
    """

    count: int = 0
    given: Mapping[str, Any] | None = None
    others: bool = False  # some calls have other names, or arguments that are no tensors
    outputs: list[Any] = field(default_factory=list)

    def need_tensors(self) -> None:
        """Raise `Refused` if the calls do not all have tensors for the same arguments."""
        if self.given is None or self.others:
            raise Refused("its arguments are not always the same tensors")

    def note(self, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Note a call."""
        self.count += 1
        named = _named(module, args, keywords)
        if named is None:
            self.others = True
            return
        if self.given is None:
            self.given = without_values(named)
        plain = all(isinstance(value, Tensor) for value in named.values())
        self.others |= not plain or list(named) != list(self.given)


def _named(
    module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any] | None:
    """The arguments of a call by their names; None if one has none, as in `*args`."""
    try:
        bound = inspect.signature(module.forward).bind(*args, **keywords)
    except (TypeError, ValueError):
        return None
    named = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL and name in named:
            return None
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update(named.pop(name, {}))
    return named


def observe_calls(
    model: nn.Module, example: Batch, forward: Forward | None
) -> dict[nn.Module, Called]:
    """Run `model` in eval mode on `example`, and note the calls of each module."""
    found = {module: Called() for module in model.modules()}

    def before(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found[module].note(module, args, keywords)

    def behind(module: nn.Module, _: Any, output: Any) -> None:
        found[module].outputs.append(without_values(output))

    # Modules in TorchScript take no hooks.
    plain = [module for module in found if not isinstance(module, torch.jit.ScriptModule)]
    hooks = [module.register_forward_pre_hook(before, with_kwargs=True) for module in plain]
    hooks += [module.register_forward_hook(behind) for module in plain]
    try:
        with evaluating(model):
            call(model, example, forward)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def without_values(value: Any) -> Any:
    """The same with tensors on the meta device."""
    return tree_map_only(Tensor, lambda x: torch.empty_like(x, device="meta"), value)
