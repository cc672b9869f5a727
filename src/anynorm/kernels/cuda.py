"""The GPU kernels: registered with torch's dispatcher here, loaded at the first call on a GPU.

They are written in Triton, which comes with torch for CUDA and ROCm.  Without Triton, and until
they are enabled, the operators run torch's own operators and their plain-PyTorch implementation.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from anynorm.errors import AnynormError
from anynorm.kernels.environment import switch

__all__ = ["OPERATORS", "available", "enable", "enabled", "register", "why_not"]

OPERATORS = (
    "moments",
    "normalize",
    "normalize_backward",
    "standardize",
    "standardize_backward",
    "track_",
)

# Keep this object: deleting it removes the registrations.
_library = torch.library.Library("anynorm", "IMPL", "CUDA")  # type: ignore[no-untyped-call]
_enabled = False


@functools.cache
def why_not() -> str | None:
    """Return why there are no GPU kernels, and what to do; ``None`` if there are."""
    if switch("ANYNORM_KERNELS") is False:
        return "ANYNORM_KERNELS=0 leaves them out"
    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch is built without CUDA and ROCm"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    return None


def available() -> bool:
    """Whether there are kernels for tensors on a GPU, which can be enabled."""
    return why_not() is None


def enabled() -> bool:
    """Whether tensors on a GPU take the kernels."""
    return _enabled


def enable() -> None:
    """Let tensors on a GPU take the kernels; raises `AnynormError` if there are none."""
    global _enabled
    if (reason := why_not()) is not None:
        raise AnynormError(f"there are no GPU kernels to enable: {reason}.")
    if not _enabled:
        register()
    _enabled = True


def register() -> None:
    """Register the kernels without importing Triton."""
    for name in OPERATORS:
        _library.impl(name, _at_first_call(name))  # type: ignore[no-untyped-call]


def _at_first_call(name: str) -> Callable[..., Any]:
    @functools.cache
    def kernel() -> Callable[..., Any]:
        module = importlib.import_module("anynorm.kernels.triton.operators")
        found: Callable[..., Any] = getattr(module, name)
        return found

    return lambda *args: kernel()(*args)
