"""Comparisons as rows: signs, intervals that are open, and a reason for each missing number."""

from __future__ import annotations

from typing import Any

import pytest

from anynorm.report.comparisons import ordered, rows, summary
from anynorm.report.missing import Missing

DECIDED = {"a": "batch", "b": "none", "answer": "better", "difference": 1.26, "test": "a test"}


def comparison(**changes: Any) -> dict[str, Any]:
    return {**DECIDED, "low": 0.3, "high": 2.2, "seeds": None, **changes}


def test_a_row_has_signs_and_says_that_it_is_decided() -> None:
    [row] = rows([comparison()])
    assert row[:7] == ["batch", "none", "+1.3", "+0.3", "+2.2", "better", "a test"]
    assert row[7] == Missing("already decided", shown=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": "cannot tell", "seeds": 7}, 7),
        ({"answer": "cannot tell"}, Missing("no number would", shown=True)),
        ({"answer": "cannot tell", "low": None, "high": None}, Missing("not known", shown=True)),
    ],
)
def test_the_seeds_that_would_decide(changes: dict[str, Any], words: int | Missing) -> None:
    assert rows([comparison(**changes)])[0][7] == words


def test_diverged_runs_have_no_difference_and_no_limits() -> None:
    [row] = rows([comparison(difference=None, low=None, high=None)])
    assert [value.reason for value in row[2:5]] == ["diverged", "no limit", "no limit"]


def test_comparisons_stand_in_the_order_of_the_ranking() -> None:
    found = [comparison(a="rms"), comparison(), comparison(a="rms", b="batch")]
    assert [(c["a"], c["b"]) for c in ordered(found, ["batch", "none", "rms"])] == [
        ("batch", "none"),
        ("rms", "none"),
        ("rms", "batch"),
    ]


def test_a_summary_counts_what_it_does_not_name() -> None:
    found = [comparison(a=name) for name in "abcdef"]
    assert summary(found) == "Better than none: a, b, c, d and 2 others."
    assert summary(found[:5]) == "Better than none: a, b, c, d and e."
    assert summary([]) == ""
