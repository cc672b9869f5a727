"""One pass in lockstep gives what passes over single batches give, whatever a forward pass does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from recomputed import furthest, off
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import recalibrate


def block(inward: int = 4, outward: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inward, outward), nn.BatchNorm1d(outward), nn.ReLU())


def data(*sizes: int) -> list[Tensor]:
    made = torch.Generator().manual_seed(1)
    return [torch.randn(size, 4, generator=made) * 2 + size / 10 for size in sizes]


class Chain(nn.Module):
    """Three blocks; the second norm and what follows run `within` a context."""

    def __init__(self, within: Callable[[], Any]) -> None:
        super().__init__()
        self.first, self.second, self.third = block(), block(), block()
        self.within = within

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with self.within():
            x = self.second(x)
        y: Tensor = self.third(x.float())
        return y


class Halved(TorchFunctionMode):
    """Halves the results of `relu`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result / 2 if func is nn.functional.relu else result


@contextmanager
def in_double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def warned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


WITHIN: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "function mode": Halved,
    "default dtype": in_double,
    "warnings": warned,
}


@pytest.mark.parametrize("name", WITHIN)
def test_what_a_forward_pass_sets_is_its_own(name: str) -> None:
    torch.manual_seed(0)
    model, batches = Chain(WITHIN[name]), data(20, 30, 7)
    before = outside()
    together = recalibrate(model, batches)
    assert outside() == before
    assert together.receipt.facts["passes"] == 1
    alone = recalibrate(model, batches, memory=0)
    assert alone.receipt.facts["passes"] > 1
    assert furthest(together.model, alone.model) < 1e-6


def outside() -> list[Any]:
    return [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch._C._len_torch_function_stack(),
        list(warnings.filters),
        torch.get_rng_state().tolist(),
    ]


class Noisy(nn.Module):
    """Adds noise from a fixed seed in two parts, with a norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(3)
        x = self.norm(x + torch.randn_like(x))
        y: Tensor = self.last(x + torch.randn_like(x))
        return y


def test_noise_from_a_seed_is_that_of_batches_alone() -> None:
    model, batches = Noisy(), data(20, 30, 7)
    state = torch.get_rng_state()
    together = recalibrate(model, batches).model
    assert torch.equal(torch.get_rng_state(), state)
    assert furthest(together, recalibrate(model, batches, memory=0).model) < 1e-6


def test_noise_differs_between_batches_and_repeats_with_a_seed() -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.seen = nn.BatchNorm1d(1), []

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(torch.randn(len(x), 1))
            return y

    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(recalibrate(Drawn(), [torch.zeros(1, 1) for _ in range(400)]).model)
    assert furthest(*found) == 0
    # The same noise in each batch would have no variance.
    assert 0.7 < float(found[0].norm.running_var) < 1.4


class Ways(nn.Module):
    """Batches of different sizes go different ways, and one layer is on no way."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.last, self.unused = (block() for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 20:
            x = self.b(self.c(x))
        elif len(x) > 10:
            x = self.c(x)
        else:
            x = self.a(x)
        y: Tensor = self.last(x)
        return y


def test_batches_that_go_different_ways() -> None:
    torch.manual_seed(0)
    model, batches = Ways(), data(30, 12, 8, 25, 15, 5)
    together, alone = recalibrate(model, batches), recalibrate(model, batches, memory=0)
    assert furthest(together.model, alone.model) < 1e-6
    assert together.receipt.facts["passes"] == 1
    assert [note.layer for note in together.receipt.refused] == ["unused.1"]
    texts = {note.layer: note.text for note in together.receipt.changed}
    assert texts["a.1"] == "statistics of 2 batches"
    assert texts["last.1"] == "statistics of 6 batches"


class Crossed(nn.Module):
    """Two layers, which some batches reach in the other order: each depends on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = block(), block(), block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(x)) if len(x) > 10 else self.one(self.two(x))
        y: Tensor = self.last(x)
        return y


def test_layers_that_depend_on_each_other_come_to_a_fixed_point() -> None:
    torch.manual_seed(0)
    model, batches = Crossed(), data(30, 8, 12, 5)
    together = recalibrate(model, batches)
    assert "note" not in together.receipt.facts
    assert together.receipt.facts["passes"] < 20
    assert off(together.model, batches) < 1e-6


class Levels(nn.Module):
    """Blocks that are called on several levels, as the heads of a detector are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = block(), block(), block()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(sum(self.second(self.first(x * level)) for level in (1, 2, 4)))
        return y


def test_layers_called_on_several_levels() -> None:
    torch.manual_seed(0)
    model, batches = Levels(), data(20, 30, 7)
    together, alone = recalibrate(model, batches), recalibrate(model, batches, memory=0)
    assert furthest(together.model, alone.model) < 1e-6
    assert together.receipt.facts["passes"] <= alone.receipt.facts["passes"]
    assert together.receipt.facts["last_change"] == 0


def test_frozen_layers_hold_nothing() -> None:
    torch.manual_seed(0)
    batches = data(20, 30)
    model = nn.Sequential(block(), anynorm.FrozenBatchNorm(4), block())
    nn.init.constant_(model[1].running_mean, 2.0)
    together, alone = recalibrate(model, batches), recalibrate(model, batches, memory=0)
    assert together.receipt.facts["passes"] == 1
    assert furthest(together.model, alone.model) < 1e-6
    assert (together.model[1].running_mean == 2).all()


def test_layers_behind_averaged_statistics_see_what_eval_mode_makes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(anynorm.create("l1-batch", 4), nn.BatchNorm1d(4))
    batches = data(20, 30, 7)
    new = recalibrate(model, batches).model.eval()
    seen = torch.cat([new[0](x) for x in batches]).double()
    torch.testing.assert_close(new[1].running_mean.double(), seen.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(new[1].running_var.double(), seen.var(0), rtol=1e-5, atol=1e-6)


def test_an_iterator_is_enough() -> None:
    torch.manual_seed(0)
    model, batches = Chain(torch.no_grad), data(20, 30, 7)
    once, again = recalibrate(model, iter(batches)), recalibrate(model, batches)
    assert "note" not in once.receipt.facts
    assert furthest(once.model, again.model) == 0
    estimated = recalibrate(model, iter(batches), memory=0).receipt.facts
    assert estimated["passes"] == 1
    assert "estimates" in estimated["note"]


class Fails(nn.Module):
    """Fails on one size of batch, behind a norm; notes which forward passes ended."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.ended = block(), block(), set[int]()

    def forward(self, x: Tensor) -> Tensor:
        try:
            with torch.enable_grad(), torch.autocast("cpu"):
                x = self.first(x)
                if len(x) == 7:
                    raise RuntimeError("seven")
                y: Tensor = self.second(x)
                return y
        finally:
            self.ended.add(len(x))


def test_a_model_that_fails_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = Fails()
    state, before = copy.deepcopy(model.state_dict()), outside()
    with pytest.raises(AnynormError, match="seven"):
        recalibrate(model, data(20, 30, 7, 12), inplace=True)
    # Those that waited were ended, and have left their blocks.
    assert model.ended - {1} == {20, 30, 7, 12}  # one sample showed what they keep
    assert outside() == before
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_batches_that_fail_to_load_end_the_forward_passes() -> None:
    def loaded() -> Iterator[Tensor]:
        yield from data(20, 30, 8)
        raise OSError("no file")

    torch.manual_seed(0)
    model = Fails()
    with pytest.raises(OSError, match="no file"):
        recalibrate(model, loaded(), inplace=True)
    assert model.ended - {1} == {20, 30, 8}


def test_recurrent_layers_of_torch() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.lstm, self.last = nn.BatchNorm1d(4), nn.LSTM(4, 6), nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.lstm(self.norm(x)[None])[0][0])
            return y

    torch.manual_seed(0)
    model, batches = Recurrent(), data(20, 30, 7)
    together = recalibrate(model, batches)
    assert together.receipt.facts["passes"] == 1
    assert furthest(together.model, recalibrate(model, batches, memory=0).model) < 1e-6


class Threaded(nn.Module):
    """Runs its layers in another thread, which cannot be suspended."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(block(), block())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool, torch.no_grad():
            y: Tensor = pool.submit(torch.no_grad()(self.layers), x).result()
            return y


def test_layers_in_other_threads_take_a_pass_each() -> None:
    torch.manual_seed(0)
    model, batches = Threaded(), data(20, 30, 7)
    found = recalibrate(model, batches)
    assert found.receipt.facts["passes"] == 3
    assert furthest(found.model.layers, recalibrate(model.layers, batches).model) < 1e-6


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_models(whole: bool) -> None:
    torch.manual_seed(0)
    inner, batches = nn.Sequential(block(), block()), data(20, 30, 7)
    expected = recalibrate(inner, batches).model
    compiled: Any = torch.compile(inner if whole else inner[0], backend="eager", fullgraph=True)
    compiled(batches[0])  # compiled before there are hooks
    inner[0].load_state_dict(copy.deepcopy(inner[0].state_dict()))
    model = compiled if whole else nn.Sequential(compiled, inner[1])
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.reset_running_stats()
    found = recalibrate(model, batches)
    assert found.receipt.facts["passes"] == 1
    assert furthest(found.model, expected) < 1e-6
