"""Which runs belong together."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import record, star

from anynorm.study.evidence import build
from anynorm.study.selection import batch_sweep, studies, sweep

PAIR = ("none", "batch")


def base_text(records: list[dict[str, Any]]) -> list[str]:
    found = build(records, title="", command="")["studies"]
    return [study["base"] for study in found]


@pytest.mark.parametrize("changes", [{"optimizer": "adamw"}, {"weight_decay": 0.1}])
def test_another_optimizer_is_another_study(changes: dict[str, Any]) -> None:
    one, other = studies([record(), record(**changes)])
    assert [len(runs.records) for runs in (one, other)] == [1, 1]


def test_records_that_do_not_mention_new_settings_have_none_of_them() -> None:
    [runs] = studies([record(), record(seed=1, weight_decay=0.0, warmup=0)])
    assert len(runs.at_base()["batch"]) == 2


def test_a_warm_up_is_part_of_the_setting() -> None:
    [runs] = studies([record(warmup=10, probes=True), record(warmup=20, lr=1.0), record(lr=1.0)])
    assert runs.base_value("warmup") == 10
    assert sweep(runs, "lr") == []


def test_batch_sizes_are_compared_although_their_warm_ups_differ() -> None:
    half = {"batch": 30, "lr": 0.05, "steps": 600, "warmup": 20}
    [runs] = studies([record(warmup=10, probes=True), record(**half)])
    assert len(sweep(runs, "batch")) == 2


def test_the_base_setting_names_the_optimizer_with_what_it_has() -> None:
    plain = star(["batch"])
    assert base_text(plain)[0].endswith("normalizer before the activation, 300 steps of SGD")
    [text] = base_text(star(["batch"], optimizer="adamw", weight_decay=0.1, warmup=20))
    assert text.endswith("300 steps of AdamW (weight decay 0.1, 20 steps of warm-up)")


def test_residual_placements_are_named_as_such() -> None:
    both = [record(placement=name, probes=name == "pre") for name in ("pre", "post")]
    [text] = base_text(both)
    assert "normalizer before each sublayer" in text
    found = build(both, title="", command="")["studies"][0]["claims"]
    [claim] = [claim for claim in found if claim["id"] == "placement"]
    assert claim["sentence"].startswith("Before each sublayer instead of after each residual sum:")
    named = [row[0] for table in claim["tables"] for row in table["rows"]]
    assert {"batch, pre", "batch, post"} <= set(named)


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


def test_the_base_is_where_all_normalizers_were_trained() -> None:
    small = [
        record(norm=norm, batch=batch, lr=0.1 * batch / 60, steps=steps)
        for norm in ("batch", "group")
        for batch in (2, 8)
        for steps in (300, 300 * 60 // batch)
    ]
    [runs] = studies([*small, *(record(norm=norm) for norm in ("none", "batch", "group"))])
    assert (runs.base_value("lr"), runs.base_value("batch")) == (0.1, 60)
