"""Which setting is the base of a study, and which runs belong to a sweep."""

from __future__ import annotations

import pytest
from synthetic_records import record

from anynorm.study.selection import batch_sweep, studies

PAIR = ("none", "batch")


def test_the_base_is_where_most_normalizers_were_probed() -> None:
    base = [record(norm=norm, probes=True) for norm in (*PAIR, "layer")]
    control = [record(norm=n, lr=1.0, probes=True, seed=s) for n in PAIR for s in range(3)]
    [runs] = studies([*control, *base])
    assert runs.base_value("lr") == 0.1


@pytest.mark.parametrize("turned", [False, True])
def test_two_normalizers_with_a_control_have_a_base_too(turned: bool) -> None:
    records = [
        record(norm=norm, lr=lr, noise=noise, probes=True)
        for norm in PAIR
        for lr, noise in ((0.1, False), (1.0, False), (1.0, True))
    ]
    [runs] = studies(records[::-1] if turned else records)
    assert runs.base_value("lr") == 0.1


def test_scaled_weights_are_not_the_base() -> None:
    [runs] = studies(
        [record(norm=n, init=init, probes=True) for init in (100.0, 1.0) for n in PAIR]
    )
    assert runs.base_value("init") == 1.0


def test_changed_normalizers_are_controls() -> None:
    [runs] = studies([record(), record(noise=True), record(affine=False)])
    assert list(runs.at_base()) == ["batch"]
    assert list(runs.controls_at()) == ["batch + noise", "batch, no γ β"]
    assert runs.controls_at(lr=1.0) == {}


def test_the_two_sweeps_over_batch_sizes_are_told_apart() -> None:
    epochs = [record(batch=b, lr=0.1 * b / 60, steps=18000 // b) for b in (2, 4, 60)]
    steps = [record(batch=b, lr=0.1 * b / 60) for b in (2, 4, 8)]
    [runs] = studies([*steps, *epochs])
    assert {r["cell"]["steps"] for r in batch_sweep(runs)} == {9000, 4500, 300}
    assert {r["cell"]["batch"] for r in batch_sweep(runs, "steps")} == {2, 4, 8, 60}
    assert {r["cell"]["steps"] for r in batch_sweep(runs, "steps")} == {300}
