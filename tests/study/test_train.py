"""One run and its record."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from anynorm.report.files import finite
from anynorm.study.cell import Cell
from anynorm.study.data import Data, load
from anynorm.study.spread import score_of
from anynorm.study.store import _checked
from anynorm.study.train import batches, run


def cell(**changes: Any) -> Cell:
    base = {"subject": "mlp-relu", "data": "digits", "norm": "batch", "lr": 0.1}
    return Cell(**{**base, "steps": 12, "seed": 0, **changes})


def results(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "cost"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"probes": True},
        {"noise": True, "probes": True},
        {"norm": "zca", "norm_options": (("groups", 20),)},
        {"norm": "weight", "optimizer": "adam", "lr": 0.001},
        {"subject": "deep-linear", "data": "gaussian", "optimizer": "momentum"},
        {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.1, "warmup": 5, "probes": True},
    ],
)
def test_equal_cells_give_equal_records(changes: dict[str, Any]) -> None:
    torch.manual_seed(1)
    one = run(cell(**changes))
    torch.manual_seed(2)
    assert repr(results(one)) == repr(results(run(cell(**changes))))


def test_another_seed_gives_another_record() -> None:
    assert run(cell())["final"] != run(cell(seed=1))["final"]


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "lr": 0.001, "warmup": 5}])
def test_probes_do_not_change_the_run(changes: dict[str, Any]) -> None:
    plain, probed = run(cell(**changes)), run(cell(**changes, probes=True))
    assert plain["probes"] is None
    assert probed["probes"]["landscape"]["step"]
    for part in ("curve", "evaluations", "final"):
        assert plain[part] == probed[part]


def test_a_transformer_is_judged_by_nats_per_character() -> None:
    subject = {"subject": "char-transformer", "data": "python-text", "norm": "rms", "batch": 4}
    settings = {"norm_options": (("qk", True),), "placement": "pre", "optimizer": "adamw"}
    record = run(cell(**subject, **settings, lr=0.01, steps=25, warmup=4, probes=True))
    assert (record["task"], record["status"]) == ("language", "ok")
    # A guess among the 97 symbols has 4.57 nats.
    assert record["final"]["test_loss"] < 3.5
    assert record["final"]["test_accuracy"] > 0.1
    assert score_of([record]).value(record) == record["final"]["test_loss"]
    assert record["probes"]["units"]["layers"] == [f"blocks.{i}.mlp.1" for i in range(4)]


def test_probes_take_the_learning_rate_of_their_step() -> None:
    probed = run(cell(steps=100, warmup=60, probes=True))["probes"]["landscape"]
    rates = [eta / b for eta, b in zip(probed["eta_beta"], probed["beta"], strict=True)]
    expected = [0.1 * min(1, (step + 1) / 60) for step in probed["step"]]
    assert rates == pytest.approx(expected)
    assert len(set(expected)) > 2


def test_units_are_probed_on_whole_mini_batches() -> None:
    # A part of 30 samples fits a batch of 60, not one of 200.
    ghost = run(cell(norm="ghost", norm_options=(("size", 30),), probes=True))
    assert ghost["probes"]["units"]["step"]


def test_random_state_and_threads_are_left_alone() -> None:
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    record = run(cell(noise=True))
    assert torch.equal(state, torch.get_rng_state())
    assert (record["environment"]["threads"], torch.get_num_threads()) == (1, 2)


def test_record_is_whole() -> None:
    made = cell(steps=30)
    record = run(made)
    assert _checked(finite(record), made.key) == record
    assert record["status"] == "ok"
    assert record["curve"]["step"] == list(range(30))
    assert record["evaluations"]["step"] == [5, 10, 15, 20, 25, 30]
    last = {name: values[-1] for name, values in record["evaluations"].items() if name != "step"}
    assert last.items() <= record["final"].items()
    assert record["final"]["test_accuracy"] > 0.5
    assert record["cost"]["seconds_per_step"] > 0
    assert record["cost"]["bytes_for_backward"] > 60 * 64 * 4


def test_a_probed_run_of_batch_norm_ends_with_a_look_at_its_channels() -> None:
    probes = run(cell(steps=6, probes=True))["probes"]
    assert probes["importance"]["channels"] == [100] * 8
    assert [len(gammas) for gammas in probes["affine"]["gamma"]] == [50] * 8


@pytest.mark.parametrize("changes", [{"noise": True}, {"norm": "layer"}, {"norm": "none"}])
def test_other_runs_have_no_channels_to_look_at(changes: dict[str, Any]) -> None:
    assert (
        not {"importance", "affine"} & run(cell(steps=2, probes=True, **changes))["probes"].keys()
    )


def test_gamma_and_beta_are_not_trained_when_fixed() -> None:
    record = run(cell(affine=False, probes=True, steps=3))
    assert {*record["probes"]["affine"]["gamma"][0]} == {1.0}


def test_long_curves_are_thinned() -> None:
    record = run(cell(subject="mlp-sigmoid", steps=450, norm="none"))
    assert record["curve"]["step"] == list(range(0, 450, 3))


def test_diverged_run_stops_and_keeps_what_it_measured() -> None:
    record = run(cell(norm="none", lr=100.0, probes=True))
    assert record["status"] == "diverged"
    assert record["diverged_at"] <= 3
    assert len(record["curve"]["step"]) == record["diverged_at"]
    assert set(record["final"].values()) == {None}
    assert len(record["probes"]["landscape"]["step"]) >= 1


def test_parameters_that_the_last_step_destroyed_count_as_diverged() -> None:
    record = run(cell(norm="none", lr=1e30, steps=1))
    assert (record["status"], record["diverged_at"]) == ("diverged", 1)


def test_batches_go_through_every_sample_each_epoch() -> None:
    x = torch.arange(10.0).unsqueeze(1)
    data = Data(x, x[:, 0], x, x[:, 0], "regression", 1)
    taken = list(itertools.islice(batches(data, 3, seed=0), 6))
    assert all(len(part) == 3 and torch.equal(part[:, 0], y) for part, y in taken)
    epochs = [torch.cat([part for part, _ in taken[i : i + 3]]) for i in (0, 3)]
    assert all(len(epoch.unique()) == 9 for epoch in epochs)
    assert not torch.equal(*epochs)


def test_same_seed_gives_every_normalizer_the_same_batches() -> None:
    first = [next(batches(load("digits"), 60, seed))[1].tolist() for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]
