"""The study: train a model with each normalizer, measure why they differ, say which suits it.

The package can be called: ``anynorm.study("mlp-relu")`` is `anynorm.study.api.study`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from anynorm.study.api import Study, study

__all__ = ["Study", "study"]


class _Callable(ModuleType):
    """Python binds a package's name to the module, which would hide a function of that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Study:
        return study(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
