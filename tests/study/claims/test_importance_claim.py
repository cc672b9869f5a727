"""|γ| as importance, judged within layers and across layers on their own."""

from __future__ import annotations

from typing import Any

from synthetic_records import record

from anynorm.study.claims.importance import QUESTIONS
from anynorm.study.claims.question import ask
from anynorm.study.selection import studies

SEEDS = range(3)


def claim(records: list[dict[str, Any]]) -> dict[str, Any]:
    [runs] = studies(records)
    return ask(QUESTIONS[0], runs)


def base(**changes: Any) -> list[dict[str, Any]]:
    """Return probed runs of batch norm, with parts of what was measured replaced."""
    records = [record(seed=seed, probes=True) for seed in SEEDS]
    for r in records:
        r["probes"]["importance"] |= changes
    return records


def test_within_and_across_are_judged_on_their_own() -> None:
    sentence = claim(base())["sentence"]
    assert sentence.startswith("Within a layer of batch, |γ| orders the channels: rank")
    assert "Across layers |γ| is not comparable" in sentence


def test_a_correlation_alone_does_not_make_layers_comparable() -> None:
    """One threshold for all layers must also do less harm than a random choice."""
    correlated = base(across=0.4)
    assert "is not comparable" in claim(correlated)["sentence"]
    harmless = {"smallest": [0.03] * 3, "random": [[1.0] * 20] * 3, "largest": [2.0] * 3}
    assert (
        "Across layers |γ| is comparable" in claim(base(across=0.4, overall=harmless))["sentence"]
    )


def test_the_wrong_order_is_said() -> None:
    assert "does not order the channels" in claim(base(within=[-0.5, -0.4, -0.6]))["sentence"]


def test_a_weak_order_that_costs_more_than_chance_is_none() -> None:
    harmful = {"smallest": [2.0] * 3, "random": [[1.0] * 20] * 3, "largest": [3.0] * 3}
    assert "does not order" in claim(base(within=[0.1] * 3, by_layer=harmful))["sentence"]


def test_seeds_that_disagree_do_not_tell() -> None:
    records = base()
    for r, value in zip(records, (0.5, -0.5, 0.1), strict=True):
        r["probes"]["importance"] |= {"within": [value] * 3}
    assert "the seeds do not tell whether |γ| orders" in claim(records)["sentence"]


def test_figures_show_what_the_sentence_says() -> None:
    panels = claim(base())["figure"]["panels"]
    assert [row["mark"] for row in panels[0]["rows"]] == ["smallest", "random", "largest"]
    assert [panel["title"] for panel in panels[2:]] == [
        "rank correlation within a layer",
        "rank correlation over all layers",
    ]


def test_without_the_probe_the_claim_is_missing() -> None:
    assert claim([record(norm="none", probes=True)])["missing"].startswith("no run of batch norm")
