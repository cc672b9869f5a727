"""Other norms as σ, and the place of a normalizer, each beside its own reference."""

from __future__ import annotations

from typing import Any

from synthetic_records import record

from anynorm.study.evidence import build


def runs(scores: dict[str, list[float]], **cell: Any) -> list[dict[str, Any]]:
    return [
        record(norm=norm, seed=seed, status="ok", final={"test_accuracy": score}, **cell)
        for norm, row in scores.items()
        for seed, score in enumerate(row)
    ]


def study(records: list[dict[str, Any]]) -> dict[str, Any]:
    [found] = build(records, title="", command="")["studies"]
    return {claim["id"]: claim for claim in found["claims"]} | {
        item["title"]: item["reason"] for item in found["missing"]
    }


BATCH = [0.950, 0.952, 0.951, 0.953, 0.949]


def test_norms_that_are_equal_within_the_margin_train_as_well() -> None:
    scores = {"none": BATCH, "batch": BATCH, "l1-batch": BATCH, "linf-batch": BATCH}
    found = study(runs(scores))["other-norms"]
    assert found["status"] == "shown"
    assert found["statement"] == "L1 and L∞ batch norm train as well as batch norm."


def test_one_norm_that_is_worse_contradicts_it() -> None:
    worse = [score - 0.1 for score in BATCH]
    found = study(runs({"batch": BATCH, "l1-batch": BATCH, "linf-batch": worse}))["other-norms"]
    assert found["status"] == "contradicted"


def test_without_such_norms_the_option_is_named() -> None:
    reason = study(runs({"none": BATCH, "batch": BATCH}))[
        "Do L1 and L∞ norms work as well as the standard deviation?"
    ]
    assert "--norms batch l1-batch linf-batch" in reason


def test_each_normalizer_is_compared_with_itself_behind_the_activation() -> None:
    before = {"none": BATCH, "batch": BATCH, "layer": BATCH}
    after = {"batch": [s - 0.05 for s in BATCH], "layer": [s + 0.03 for s in BATCH]}
    found = study([*runs(before), *runs(after, placement="after")])["placement"]
    assert (found["status"], found["statement"]) == (
        "shown",
        "Batch norm works better before the activation.",
    )
    assert [(c["a"], c["b"], c["answer"]) for c in found["comparisons"]] == [
        ("batch, before", "batch, after", "better"),
        ("layer, before", "layer, after", "harmful"),
    ]
    assert "batch 5 points higher" in found["sentence"]
