"""What a forward pass sets for its thread, kept apart from what others set that take turns with it.

`torch.no_grad`, `torch.autocast`, function modes and the random state belong to the thread.  If a
forward pass is suspended in the middle of a `with` block, others must not see what the block set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils import _python_dispatch as dispatch

__all__ = ["Settings", "fresh_random_state", "restore", "settings", "with_settings"]

Settings = list[Any]


def _autocast() -> tuple[Any, ...]:
    kinds = [(k, torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in _DEVICES]
    return torch.is_autocast_cache_enabled(), kinds


def _set_autocast(value: tuple[Any, ...]) -> None:
    torch.set_autocast_cache_enabled(value[0])
    for kind, enabled, dtype in value[1]:
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


def _set_stack(now: list[Any], wanted: list[Any], push: Any, pop: Any) -> None:
    if now == wanted:
        return
    for _ in now:
        pop()
    for mode in wanted:
        push(mode)


def _set_function_modes(wanted: list[Any]) -> None:
    push, pop = torch._C._push_on_torch_function_stack, torch._C._pop_torch_function_stack
    _set_stack(_get_current_function_mode_stack(), wanted, push, pop)


def _set_dispatch_modes(wanted: list[Any]) -> None:
    now = dispatch._get_current_dispatch_mode_stack()
    _set_stack(now, wanted, dispatch._push_mode, dispatch._pop_mode)


def _random_state() -> tuple[Any, ...]:
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), on_gpu


def _set_random_state(value: tuple[Any, ...]) -> None:
    torch.set_rng_state(value[0])
    if value[1] is not None:
        torch.cuda.set_rng_state_all(value[1])


def _set_filters(value: Any) -> None:
    warnings.filters = value


_accelerator = torch.accelerator.current_accelerator()
_DEVICES = ("cpu",) if _accelerator is None else ("cpu", _accelerator.type)
_TABLE: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (_autocast, _set_autocast),
    (_get_current_function_mode_stack, _set_function_modes),
    (dispatch._get_current_dispatch_mode_stack, _set_dispatch_modes),
    (_random_state, _set_random_state),
    (lambda: warnings.filters, _set_filters),
)


def settings() -> Settings:
    """What is set now."""
    return [torch.is_inference_mode_enabled(), *(read() for read, _ in _TABLE)]


def restore(values: Settings) -> None:
    """Set what `settings` returned, except for inference mode, which only a block can leave."""
    for (_, write), value in zip(_TABLE, values[1:], strict=True):
        write(value)


@contextmanager
def with_settings(wanted: Settings) -> Iterator[None]:
    """Set what `settings` returned, in the block.

    >>> before = settings()
    >>> with torch.enable_grad(), torch.autocast("cpu"), with_settings(before):
    ...     torch.is_autocast_enabled("cpu")
    False
    """
    own = settings()
    # The block of inference mode sets gradients too, so it comes first.
    differs = own[0] != wanted[0]
    with torch.inference_mode(wanted[0]) if differs else nullcontext():
        restore(wanted)
        try:
            yield
        finally:
            restore(own)


def fresh_random_state(seeds: torch.Generator) -> Tensor:
    """Start a random stream of torch with a seed from `seeds`; returns its state on the CPU."""
    seed = int(torch.randint(2**62, (), generator=seeds))
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    return torch.get_rng_state()
