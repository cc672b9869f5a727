"""The settings of a thread, read and put in place again."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from anynorm.surgery.recalibrating.settings import fresh_random_state, settings, with_settings


class Mode(TorchFunctionMode):
    """Changes nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_blocks_are_left_and_entered_again() -> None:
    outside = settings()
    with torch.inference_mode(), torch.autocast("cpu", torch.float16), Mode() as mode:
        within = settings()
        with with_settings(outside):
            assert not torch.is_inference_mode_enabled()
            assert torch.is_grad_enabled() == outside[1]
            assert not torch.is_autocast_enabled("cpu")
            assert torch._C._len_torch_function_stack() == 0
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
        assert torch.get_autocast_dtype("cpu") == torch.float16
        assert torch.overrides._get_current_function_mode_stack() == [mode]
        with with_settings(within):  # which are in place already
            assert torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled() == outside[1]


def test_blocks_of_two_may_end_in_any_order() -> None:
    """As in two forward passes that take turns."""
    outside = settings()
    one, other = torch.inference_mode(), torch.no_grad()
    one.__enter__()
    first = with_settings(outside)
    first.__enter__()
    other.__enter__()
    second = with_settings(outside)
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.is_inference_mode_enabled()
    one.__exit__(None, None, None)
    assert torch.is_grad_enabled()
    second.__exit__(None, None, None)
    assert not torch.is_grad_enabled()
    other.__exit__(None, None, None)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_fresh_random_states_differ_and_repeat() -> None:
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        seeds = torch.Generator().manual_seed(4)
        for _ in range(2):
            with with_settings(settings()):
                fresh_random_state(seeds)
                drawn.append(float(torch.rand(())))
    assert drawn[:2] == drawn[2:]
    assert drawn[0] != drawn[1]
    assert torch.equal(torch.get_rng_state(), before)
