"""Recomputing running statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from recomputed import off
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import recalibrate

DATA = torch.Generator().manual_seed(0)


def batches(*sizes: int, features: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(n, features) * 3 + n, torch.zeros(n, dtype=torch.long)) for n in sizes]


def deep(depth: int = 5) -> nn.Module:
    """Convolutions, then a linear layer, each with its batch norm."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Conv2d(8 if index else 3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 36, 16), nn.BatchNorm1d(16))


@torch.no_grad()
def population(model: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Each batch norm's statistics from one float64 pass over all data, in the plainest way."""
    model = copy.deepcopy(model).double().eval()
    x = x.double()
    for layer in model:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            axes = [0, *range(2, x.dim())]
            layer.running_mean.copy_(x.mean(axes))
            layer.running_var.copy_(x.var(axes))
        x = layer(x)
    return model


def furthest(model: nn.Module, truth: nn.Module) -> float:
    """The largest relative error of a running statistic, against its layer's largest one."""
    pairs = zip(model.named_buffers(), truth.buffers(), strict=True)
    found = [(one.double(), other) for (name, one), other in pairs if "running" in name]
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", [[130], [64, 64, 2], [43, 43, 43, 1], [1] * 130, [1, 128, 1]])
def test_any_split_gives_the_population_statistics(sizes: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = deep().to(dtype), torch.randn(130, 3, 6, 6, dtype=dtype) * 3 + 1
    result = recalibrate(model, list(x.split(sizes)))
    assert furthest(result.model, population(model, x)) < 1e-6
    assert result.receipt.facts["last_change"] == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm1d(3),
        lambda: nn.BatchNorm1d(3, momentum=None),
        lambda: anynorm.BatchNorm1d(3),
        lambda: anynorm.create("batch", 3),
    ],
)
def test_batch_statistics_are_those_of_all_values_pooled(make: Callable[[], Any]) -> None:
    data = batches(7, 20, 2)
    norm = recalibrate(make(), data).model
    everything = torch.cat([x for x, _ in data]).double()
    torch.testing.assert_close(norm.running_mean.double(), everything.mean(dim=0))
    torch.testing.assert_close(norm.running_var.double(), everything.var(dim=0))
    assert norm.num_batches_tracked == 3


def test_other_statistics_are_averaged_by_the_size_of_the_batch() -> None:
    norm: Any = nn.InstanceNorm1d(2, track_running_stats=True)
    # What was there before does not count, not even this.
    norm.running_mean.fill_(torch.nan)
    data = [(torch.randn(n, 2, 9), torch.zeros(n)) for n in (5, 3)]
    new: Any = recalibrate(norm, data).model
    everything = torch.cat([x for x, _ in data])
    torch.testing.assert_close(new.running_mean, everything.mean(dim=2).mean(dim=0))
    torch.testing.assert_close(new.running_var, everything.var(dim=2).mean(dim=0))
    assert new.momentum == 0.1


@pytest.mark.parametrize("name", ["l1-batch", "linf-batch", "ghost", "zca", "pca"])
def test_every_statistic_shared_by_samples_is_recomputed(name: str) -> None:
    norm = anynorm.create(name, 4, **({"size": 16} if name == "ghost" else {}))
    x = torch.randn(64, 4) * 3 + 5
    for _ in range(400):
        norm(x)
    settled = {key: value.clone() for key, value in norm.named_buffers() if "running" in key}
    norm.reset_running_stats()  # type: ignore[operator]
    new = recalibrate(norm, [(x, x)]).model
    for key, value in settled.items():
        torch.testing.assert_close(new.get_buffer(key), value, rtol=1e-4, atol=1e-4)


def test_a_layer_called_twice_pools_its_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3, affine=False)

        def forward(self, x: Tensor) -> Tensor:
            self.norm(x)
            y: Tensor = self.norm(x + 10)
            return y

    x = torch.randn(30, 3)
    new: Any = recalibrate(Twice(), [(x, x)]).model
    torch.testing.assert_close(new.norm.running_mean, x.mean(dim=0) + 5)


def test_modes_dropout_and_other_state_stay_while_poisoned_statistics_heal() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3))
    model[1].running_mean.fill_(torch.nan)
    modes = [module.training for module in model.modules()]
    weights = copy.deepcopy(list(model.parameters()))
    data, state = batches(64), torch.get_rng_state()
    assert recalibrate(model, data, inplace=True).model is model
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(model.parameters(), weights, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not any(module._forward_pre_hooks for module in model.modules())
    # Dropout of 0.9 would have left a tenth of the values.
    assert (model[1].running_mean > 60).all()


def test_the_given_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    state = copy.deepcopy(model.state_dict())
    recalibrate(model, batches(9))
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("empty", [[], iter([])])
def test_no_batches_is_an_error_and_changes_nothing(empty: Any) -> None:
    norm: Any = nn.BatchNorm1d(3)
    norm.running_mean.fill_(5.0)
    with pytest.raises(AnynormError, match="give at least one"):
        recalibrate(norm, empty, inplace=True)
    assert norm.running_mean.tolist() == [5.0] * 3


def test_values_that_are_not_finite_are_an_error_and_change_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    state = copy.deepcopy(model.state_dict())
    x = torch.randn(8, 3)
    x[3, 1] = torch.inf
    with pytest.raises(AnynormError, match="what reaches '0' is not finite"):
        recalibrate(model, [x], inplace=True)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def test_a_generator_gets_one_pass() -> None:
    model = deep(2)
    x = torch.randn(60, 3, 6, 6)
    receipt = recalibrate(model, iter(x.split(20))).receipt
    assert receipt.facts["passes"] == 1


def test_batches_drawn_anew_stop_the_passes_and_are_noted() -> None:
    class Shuffled:
        def __iter__(self) -> Iterator[Tensor]:
            return iter([torch.randn(20, 3, 6, 6, generator=DATA) for _ in range(3)])

    receipt = recalibrate(deep(6), Shuffled(), memory=0).receipt
    assert receipt.facts["passes"] == 2
    assert "differ from pass to pass" in receipt.facts["note"]


def test_named_layers_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    result = recalibrate(model, batches(9), layers=["1"])
    changed: Any = result.model
    assert torch.equal(changed[0].running_mean, torch.zeros(3))
    assert [note.layer for note in result.receipt.changed] == ["1"]
    with pytest.raises(AnynormError, match=r"\['2'\] do not keep running statistics"):
        recalibrate(model, batches(9), layers=["2"])


def test_layers_that_nothing_reaches_are_named() -> None:
    class Unused(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self[0](x)
            return y

    receipt = recalibrate(Unused(nn.BatchNorm1d(3), nn.BatchNorm1d(3)), batches(9)).receipt
    assert [note.layer for note in receipt.refused] == ["1"]


def test_a_model_without_running_statistics_is_left_alone() -> None:
    model = nn.Sequential(nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False))
    receipt = recalibrate(model, batches(4)).receipt
    assert (receipt.changed, receipt.facts["passes"]) == ((), 0)


@pytest.mark.parametrize("passes", [0, -1])
def test_passes_are_counted_from_one(passes: int) -> None:
    with pytest.raises(AnynormError, match="give 1 or more"):
        recalibrate(deep(1), [], passes=passes)


def both() -> nn.Module:
    """A layer whose statistics are pooled, and two, one synchronised, with averaged ones."""
    torch.manual_seed(0)
    averaged = anynorm.create("zca", 8, groups=2), anynorm.create("l1-batch", 8, sync=True)
    return nn.Sequential(deep(2)[:3], *averaged)  # type: ignore[index]


def _rank(rank: int, file: str, parts: list[Tensor], found: Any) -> None:
    store = dist.FileStore(file, len(parts))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(parts))
    # The first rank's batches are larger, and so there are fewer of them.
    new = recalibrate(both(), list(parts[rank].split(30 - 20 * rank))).model
    found[rank] = {name: b.clone() for name, b in new.named_buffers() if "running" in name}
    dist.destroy_process_group()


def test_every_rank_gets_the_statistics_of_all(tmp_path: Any) -> None:
    x = torch.randn(70, 3, 6, 6, generator=DATA)
    with mp.Manager() as manager:
        found = manager.dict()
        parts = list(x.split([60, 10]))
        mp.spawn(_rank, (str(tmp_path / "store"), parts, found), nprocs=2)
        one, other = found[0], found[1]
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    alone = recalibrate(both(), [x[:30], x[30:60], x[60:]]).model
    expected = {name: b for name, b in alone.named_buffers() if "running" in name}
    assert "1.running_cov" in expected
    torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)


class _Drawn:
    """Batches that are drawn anew for each pass."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.randn(20, 3, generator=DATA) for _ in range(2)])


def _deciding_rank(rank: int, file: str, found: Any) -> None:
    store = dist.FileStore(file, 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = nn.Sequential(*(nn.BatchNorm1d(3) for _ in range(4)))
    data = _Drawn() if rank == 0 else [torch.zeros(20, 3)]
    facts = dict(recalibrate(model, data, memory=0).receipt.facts)
    found[rank] = {name: facts.get(name) for name in ("passes", "last_change", "note")}
    dist.destroy_process_group()


def test_ranks_take_the_same_decisions(tmp_path: Any) -> None:
    """One that stops while another waits for it would never end."""
    with mp.Manager() as manager:
        found = manager.dict()
        mp.spawn(_deciding_rank, (str(tmp_path / "store"), found), nprocs=2)
        assert found[0] == found[1]
        assert "differ from pass to pass" in found[0]["note"]


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("ratio", [0, 100, 300, 3000])
def test_means_of_many_sigma_settle(ratio: float, memory: float | None) -> None:
    torch.manual_seed(0)
    layers = [nn.BatchNorm1d(4), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 8)]
    model = nn.Sequential(*layers, nn.BatchNorm1d(8))
    data = [torch.randn(32, 4) + ratio for _ in range(10)]
    result = recalibrate(model, data, memory=memory)
    # The mean is kept in float32, at a distance of ratio σ, to 6e-8 of that.
    assert off(result.model, data) < 1e-6 + 3 * 6e-8 * ratio
    assert "note" not in result.receipt.facts
    assert result.receipt.facts["last_change"] == 0
    assert result.receipt.facts["passes"] <= 5


class Steps(nn.Module):
    """A recurrent net with one normalizer for all time steps."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.inward, self.onward, self.out = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.onward.weight.data *= strength
        self.norm, self.last = nn.BatchNorm1d(8), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 8)
        for step in x.unbind(1):
            state = torch.tanh(self.norm(self.inward(step) + self.onward(state)))
        y: Tensor = self.last(self.out(state))
        return y


def test_a_layer_that_depends_on_itself_comes_to_a_fixed_point() -> None:
    torch.manual_seed(0)
    data = [torch.randn(16, 5, 4) for _ in range(3)]
    result = recalibrate(Steps(0.3), data)
    assert "note" not in result.receipt.facts
    assert off(result.model, data) < 1e-6


def test_what_does_not_settle_is_said() -> None:
    torch.manual_seed(0)
    data = [torch.randn(16, 4, 4) for _ in range(2)]
    facts = recalibrate(Steps(10.0), data).receipt.facts
    assert "did not converge" in facts["note"]
    assert "differ" not in facts["note"]
    assert facts["last_change"] > 0.1
    assert facts["passes"] < 60
    asked = recalibrate(Steps(10.0), data, passes=3).receipt.facts
    assert asked["passes"] == 3
    assert "note" not in asked


def test_noise_in_eval_mode_does_not_settle() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    model = nn.Sequential(nn.BatchNorm1d(3), Noise(), nn.BatchNorm1d(3))
    data = [torch.randn(32, 3) for _ in range(3)]
    facts = recalibrate(model, data, memory=0).receipt.facts
    assert "did not converge" in facts["note"]
    assert "random numbers in eval mode" in recalibrate(model, data).receipt.facts["note"]


def test_another_order_of_the_same_samples_is_no_other_data() -> None:
    everything = torch.randn(60, 3, generator=DATA) + 40

    class Shuffled:
        def __iter__(self) -> Iterator[Tensor]:
            order = torch.randperm(60, generator=DATA)
            return iter(everything[order].split(16))

    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 5), nn.BatchNorm1d(5))
    receipt = recalibrate(model, Shuffled()).receipt
    assert "note" not in receipt.facts


@pytest.mark.parametrize(
    ("norm", "axes"),
    [
        (anynorm.Norm("[n ...] c", 4), (0, 1)),
        (anynorm.Norm("[n] c [l]", 5), (0, 2)),
        (anynorm.create("batch-per-activation", (5, 4)), (0,)),
    ],
)
def test_channels_on_any_axes_are_pooled(norm: Any, axes: tuple[int, ...]) -> None:
    data = [torch.randn(n, 5, 4) * 3 + n for n in (7, 20, 2)]
    new: Any = recalibrate(norm, data).model
    everything = torch.cat(data).double()
    torch.testing.assert_close(new.running_mean.double(), everything.mean(axes))
    torch.testing.assert_close(new.running_var.double(), everything.var(axes))


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.0},
        {"num_batches_tracked": None},
        {"num_batches_tracked": torch.tensor(-7)},
        {"track_running_stats": False},
    ],
)
@pytest.mark.parametrize("make", [lambda: nn.BatchNorm1d(3), lambda: anynorm.BatchNorm1d(3)])
def test_whatever_moves_the_statistics_they_are_recomputed(
    make: Callable[[], Any], changes: dict[str, Any]
) -> None:
    norm = make()
    for name, value in changes.items():
        setattr(norm, name, value)
    x = torch.randn(30, 3) * 2 + 1
    result = recalibrate(norm, [x])
    new: Any = result.model
    torch.testing.assert_close(new.running_mean, x.mean(0))
    assert new.momentum == norm.momentum
    if norm.num_batches_tracked is not None:
        assert new.num_batches_tracked == 1


def test_averaged_statistics_need_no_count() -> None:
    norm: Any = nn.InstanceNorm1d(2, track_running_stats=True)
    norm.num_batches_tracked = None
    norm.running_mean.fill_(torch.nan)
    x = torch.randn(6, 2, 9)
    new: Any = recalibrate(norm, [x]).model
    torch.testing.assert_close(new.running_mean, x.mean(dim=2).mean(dim=0))
