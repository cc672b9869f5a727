"""Transfer the hooks and the mode of a module to the module that replaces it."""

from __future__ import annotations

from torch import nn

__all__ = ["HOOKS", "hooked", "succeed"]

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def succeed(old: nn.Module, new: nn.Module) -> nn.Module:
    """Give `new` the hooks and the mode of `old`; modules of `old` inside it keep their own mode.

    >>> succeed(nn.BatchNorm1d(3).eval(), nn.Identity()).training
    False
    """
    for name in HOOKS:
        getattr(new, name).update(getattr(old, name))
    kept = set(old.modules())
    for module in new.modules():
        if module not in kept:
            module.training = old.training
    return new


def hooked(module: nn.Module) -> bool:
    """Whether calling the module runs hooks."""
    return any(getattr(module, name) for name in HOOKS)
