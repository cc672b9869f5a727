"""Comparisons and their four answers."""

from __future__ import annotations

import numpy as np
import pytest

from anynorm.study.inference import ANSWERS, Sample, against_control, among_best
from anynorm.study.inference.compare import Comparison


def against(none: list[float | None], other: list[float | None], margin: float = 0.5) -> Comparison:
    samples = Sample("none", none), [Sample("batch", other)]
    [found] = against_control(*samples, quantity="accuracy", margin=margin)
    return found


@pytest.mark.parametrize(
    ("other", "answer"),
    [
        ([95.0, 95.2, 94.8], "better"),
        ([85.0, 85.2, 84.8], "harmful"),
        ([90.1, 89.9, 90.05], "equivalent"),
        ([92.0, 88.0, 91.0], "cannot tell"),
    ],
)
def test_four_answers(other: list[float | None], answer: str) -> None:
    found = against([90.0, 90.1, 89.9], other)
    assert found.answer == answer
    assert found.answer in ANSWERS
    assert found.low is not None
    assert found.high is not None
    assert found.difference is not None
    assert found.low <= found.difference <= found.high


def test_the_margin_decides_what_is_equivalent() -> None:
    other = [90.3, 89.6, 90.2]
    assert against([90.0, 90.1, 89.9], other, margin=0.1).answer == "cannot tell"
    assert against([90.0, 90.1, 89.9], other, margin=2.0).answer == "equivalent"


@pytest.mark.parametrize("values", [[90.0], []])
def test_one_seed_cannot_tell(values: list[float | None]) -> None:
    found = against(values, [99.0, 98.0])
    assert (found.answer, found.low, found.high) == ("cannot tell", None, None)
    assert found.test.startswith("none")


def test_two_seeds_tell_a_very_large_difference() -> None:
    assert against([10.1, 10.2], [59.8, 60.2]).answer == "better"
    assert against([10.1, 14.0], [12.8, 19.2]).answer == "cannot tell"


def test_runs_that_all_diverged_are_worse_and_have_no_interval() -> None:
    found = against([None, None, None], [90.0, 91.0, 92.0])
    assert (found.answer, found.difference, found.low) == ("better", None, None)
    assert "diverged" in found.test
    assert against([90.0, 91.0, 92.0], [None, None, None]).answer == "harmful"
    assert against([90.0, 91.0, None], [90.5, 90.0, 91.0]).answer == "cannot tell"


def test_a_pair_without_diverged_runs_keeps_its_interval() -> None:
    none, batch = Sample("none", [90.0, 90.2, 89.9]), Sample("batch", [95.0, 95.1, 94.8])
    lost = Sample("linf", [95.0, None, 95.2])
    found = against_control(none, [batch, lost], quantity="accuracy", margin=0.5)
    assert [c.a for c in found] == ["batch", "linf"]
    assert found[0].low is not None
    assert found[1].low is None


def test_the_seeds_that_would_decide_do_so_when_they_are_run() -> None:
    rng = np.random.default_rng(4)
    found = against(list(rng.standard_normal(3)), list(rng.standard_normal(3) + 1.0))
    assert found.answer == "cannot tell"
    assert found.seeds is not None
    many = rng.standard_normal((2, found.seeds))
    many = (many - many.mean(axis=1, keepdims=True)) / many.std(axis=1, ddof=1, keepdims=True)
    spread = (found.high - found.low) / 6  # about the deviation that was seen
    again = against(list(many[0] * spread), list(many[1] * spread + found.difference))
    assert again.answer != "cannot tell"


def test_no_number_of_seeds_replaces_held_out_items() -> None:
    rng = np.random.default_rng(0)
    one = np.tile(100.0 * (rng.random(60) < 0.7), (3, 1))
    other = one.copy()
    other[:, :10] = 100.0 - one[:, :10]  # right where the other is wrong, and the reverse
    table = [rows + rng.normal(0, 0.1, (3, 1)) for rows in (one, other)]
    none, batch = (Sample(n, t.mean(axis=1), items=t) for n, t in zip("nb", table, strict=True))
    assert abs(none.finite.mean() - batch.finite.mean()) < 12
    [found] = against_control(none, [batch], quantity="accuracy", margin=0.5)
    assert (found.answer, found.seeds) == ("cannot tell", None)


def test_each_is_compared_with_the_best() -> None:
    samples = [
        Sample("batch", [95.0, 95.2, 94.9]),
        Sample("layer", [95.1, 95.0, 95.05]),
        Sample("rms", [80.0, 80.1, 79.8]),
    ]
    found = {c.a: c for c in among_best(samples, quantity="accuracy", margin=0.5)}
    assert {c.b for c in found.values()} == {"layer"}
    assert found["rms"].answer == "harmful"
    assert found["batch"].answer == "equivalent"
    assert among_best(samples[:1], quantity="accuracy", margin=0.5) == []


def test_constant_outcomes_are_equivalent_and_not_an_error() -> None:
    assert against([10.0] * 3, [10.0] * 3).answer == "equivalent"
    assert against([10.0] * 3, [12.0] * 3).answer == "better"


def test_a_comparison_is_plain_json() -> None:
    found = against([90.0, 90.1, 89.9], [92.0, 88.0, 91.0]).to_dict()
    keys = {"a", "b", "quantity", "answer", "difference", "low", "high", "test", "seeds"}
    assert set(found) == keys | {"not_excluded"}
    assert found["not_excluded"] == max(abs(found["low"]), abs(found["high"]))
