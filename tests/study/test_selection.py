"""Which runs belong together."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import record, star

from anynorm.study.evidence import build
from anynorm.study.selection import studies, sweep


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
    [claim] = [
        claim
        for claim in build(both, title="", command="")["studies"][0]["claims"]
        if claim["id"] == "placement"
    ]
    assert " pre, " in claim["sentence"]
    assert claim["sentence"].endswith(" post.")
    assert [row[0] for row in claim["tables"][0]["rows"]] == [
        "batch, before each sublayer",
        "batch, after each residual sum",
    ]
