"""Comparisons as a table, the same on the page and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.missing import Missing

__all__ = ["columns", "interval", "ordered", "rows", "signed", "summary"]

Comparison = Mapping[str, Any]
NEEDED = "seeds that would decide"
NAMED = 4  # normalizers that a summary names; the table has them all
WORDS = {
    "better": "Better than",
    "equivalent": "Equivalent to",
    "cannot tell": "Undecided, compared with",
    "harmful": "Worse than",
}


def columns(unit: str) -> list[str]:
    """Return the names of the columns of `rows`."""
    difference = f"difference, {unit}" if unit else "difference"
    return ["normalizer", "compared with", difference, "low", "high", "answer", "test", NEEDED]


def rows(comparisons: Sequence[Comparison]) -> list[list[Any]]:
    """Return a row for each comparison; a cell without a number has the reason."""
    return [
        [
            comparison["a"],
            comparison["b"],
            _number(comparison["difference"], "diverged"),
            _number(comparison["low"], "no limit"),
            _number(comparison["high"], "no limit"),
            comparison["answer"],
            comparison["test"],
            _seeds(comparison),
        ]
        for comparison in comparisons
    ]


def ordered(comparisons: Sequence[Comparison], order: Sequence[str]) -> list[Comparison]:
    """Return comparisons in the order of the figure: by reference, then by rank."""
    others = list(dict.fromkeys(one["b"] for one in comparisons))
    return sorted(comparisons, key=lambda one: (others.index(one["b"]), order.index(one["a"])))


def _number(value: float | None, otherwise: str) -> str | Missing:
    return Missing(otherwise, shown=True) if value is None else signed(value)


def _seeds(comparison: Comparison) -> int | Missing:
    if comparison["seeds"] is not None:
        return int(comparison["seeds"])
    if comparison["answer"] != "cannot tell":
        return Missing("already decided", shown=False)
    known = comparison["low"] is not None or comparison["high"] is not None
    return Missing("no number would" if known else "not known", shown=True)


def signed(value: float) -> str:
    """Return a difference with its sign and one decimal.

    >>> signed(1.06), signed(-0.24), signed(-0.01)
    ('+1.1', '−0.2', '0.0')
    """
    # Adding zero turns the negative zero that rounding leaves into a plain one.
    rounded = round(value, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def interval(comparison: Comparison) -> str:
    """Return the interval of a difference in words.

    >>> interval({"low": -0.24, "high": 1.06}), interval({"low": 0.31, "high": None})
    ('−0.2 to +1.1', 'at least +0.3')
    >>> interval({"low": None, "high": None})
    'no interval'
    """
    low, high = comparison["low"], comparison["high"]
    if low is None and high is None:
        return "no interval"
    if low is None:
        return f"at most {signed(high)}"
    return f"at least {signed(low)}" if high is None else f"{signed(low)} to {signed(high)}"


def summary(comparisons: Sequence[Comparison]) -> str:
    """Return a summary: which normalizers are better, equivalent or worse than which reference.

    >>> pair = {"a": "batch", "b": "none", "answer": "better"}
    >>> summary([pair, {**pair, "a": "rms", "answer": "cannot tell"}])
    'Better than none: batch. Undecided, compared with none: rms.'
    """
    return " ".join(
        f"{words} {other}: {_listed(names)}."
        for other in dict.fromkeys(c["b"] for c in comparisons)
        for answer, words in WORDS.items()
        if (names := [c["a"] for c in comparisons if (c["b"], c["answer"]) == (other, answer)])
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    first = names if more < 2 else [*names[:NAMED], f"{more} others"]
    return " and ".join([*([", ".join(first[:-1])] if len(first) > 1 else []), first[-1]])
