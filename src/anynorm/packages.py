"""Packages that can be called like the function of their name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["make_callable"]


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Let the imported package called `name` be called as `function`.

    Python binds a package's name to the module, which would hide a function of that name.

    >>> make_callable("anynorm.packages", lambda x: x + 1)
    >>> sys.modules["anynorm.packages"](2)
    3
    """

    class Package(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    sys.modules[name].__class__ = Package
