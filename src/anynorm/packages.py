"""Packages that can be called like their function of the same name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["make_callable"]


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Make the imported package `name` callable: a call calls `function`.

    Python binds the package's name to the module, which hides a function of the same name.

    >>> make_callable("anynorm.packages", lambda x: x + 1)
    >>> sys.modules["anynorm.packages"](2)
    3
    """

    class Package(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    sys.modules[name].__class__ = Package
