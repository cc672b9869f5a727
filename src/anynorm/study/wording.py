"""Numbers as the study's sentences write them: always a median with the range of its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.spread import Score, Spread

__all__ = [
    "fold",
    "join",
    "number",
    "percent",
    "plural",
    "score_text",
    "signed",
    "spread_text",
    "times",
]


def number(value: float | None) -> str:
    """Three significant digits; a missing number is a diverged run.

    >>> number(0.012345), number(None)
    ('0.0123', 'diverged')
    """
    return "diverged" if value is None else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal.

    >>> percent(0.9751)
    '97.5'
    """
    return "diverged" if value is None else f"{100 * value:.1f}"


def spread_text(seeds: Spread) -> str:
    """A median with its range.

    >>> spread_text({"n": 3, "median": 2.0, "low": 1.5, "high": 2.5})
    '2 [1.5, 2.5]'
    """
    return _bracketed([number(seeds[key]) for key in ("median", "low", "high")], "", seeds["n"])


def score_text(score: Score, seeds: Spread) -> str:
    """A score's median with its range, in per cent for an accuracy."""
    if not score.higher_is_better:
        return spread_text(seeds)
    return _bracketed([percent(seeds[key]) for key in ("median", "low", "high")], "%", seeds["n"])


def _bracketed(texts: Sequence[str], unit: str, n: int) -> str:
    middle, low, high = texts
    if low == high == "diverged":
        return "diverged"
    shown = middle if middle == "diverged" else middle + unit
    return shown if n == 1 else f"{shown} [{low}, {high}]"


def times(ratio: float) -> str:
    """A ratio.

    >>> times(21.27), times(1.04)
    ('21×', '1.0×')
    """
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×" if ratio < 1 else f"{ratio:.1f}×"


def signed(value: float) -> str:
    """A difference with its sign and one decimal.

    >>> signed(1.06), signed(-0.24), signed(-0.01)
    ('+1.1', '−0.2', '0.0')
    """
    # Adding zero turns the negative zero that rounding leaves into a plain one.
    rounded = round(value, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def _factor(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def fold(found: Mapping[str, Any]) -> str:
    """A range of usable values, such as learning rates.

    >>> fold({"low": 0.03, "high": 1.0, "open_low": False, "open_high": False})
    'from 0.03 to 1 (33-fold)'
    >>> fold({"low": None, "high": None})
    'nowhere'
    """
    if found["low"] is None:
        return "nowhere"
    low, high = found["low"], found["high"]
    if low == high:
        return f"at {number(low)} only"
    least = "at least " if found["open_low"] or found["open_high"] else ""
    return f"from {number(low)} to {number(high)} ({least}{_factor(high / low)}-fold)"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def join(names: Sequence[str], most: int | None = None) -> str:
    """Names as a sentence lists them; those beyond `most` are counted.

    >>> join(["batch", "group", "layer"]), join(["batch", "group", "layer"], most=1)
    ('batch, group and layer', 'batch and 2 others')
    """
    if most is not None and len(names) > most + 1:
        return join([*names[:most], f"{len(names) - most} others"])
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])
