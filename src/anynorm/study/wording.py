"""Numbers as text for the study's sentences, usually a median with its range over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anynorm.study.inference import Comparison
from anynorm.study.spread import Score, Spread

__all__ = [
    "change_interval",
    "change_size",
    "comparison_text",
    "difference_text",
    "fold",
    "interval_text",
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
    """A number with three significant digits; None stands for a run that diverged.

    >>> number(0.012345), number(1162.0), number(None)
    ('0.0123', '1,162', 'diverged')
    """
    if value is None:
        return "diverged"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal.

    >>> percent(0.9751)
    '97.5'
    """
    return "diverged" if value is None else f"{100 * value:.1f}"


def spread_text(seeds: Spread, unit: str = "", *, lost: str = "diverged") -> str:
    """A median with its range; `lost` is the text for a run without a value.

    >>> spread_text({"n": 3, "median": 2.0, "low": 1.5, "high": 2.5}, "points")
    '2 points [1.5, 2.5]'
    """
    found = (seeds[key] for key in ("median", "low", "high"))
    texts = [lost if value is None else number(value) for value in found]
    return _bracketed(texts, unit if unit in ("", "%") else f" {unit}", seeds["n"], lost)


def score_text(score: Score, seeds: Spread) -> str:
    """A score's median with its range, in per cent for an accuracy."""
    if not score.higher_is_better:
        return spread_text(seeds)
    return _bracketed([percent(seeds[key]) for key in ("median", "low", "high")], "%", seeds["n"])


def _bracketed(texts: Sequence[str], unit: str, n: int, lost: str = "diverged") -> str:
    middle, low, high = texts
    if low == high == lost:
        return lost
    shown = middle if middle == lost else middle + unit
    return shown if n == 1 else f"{shown} [{low}, {high}]"


def difference_text(difference: float, unit: str, words: tuple[str, str]) -> str:
    """A difference in its unit; without a unit, `difference` is the logarithm of a ratio.

    `words` are the words for a positive and for a negative difference.

    >>> difference_text(-7.24, "points", ("higher", "lower"))
    '7.2 points lower'
    >>> difference_text(1.25, "", ("smaller", "larger"))
    '3.5 times smaller'
    """
    word = words[0] if difference >= 0 else words[1]
    return f"{_size(difference, unit)} {unit or 'times'} {word}"


def interval_text(low: float, high: float, unit: str, words: tuple[str, str]) -> str:
    """An interval of differences; if it contains zero, both directions are named.

    >>> interval_text(1.06, 1.44, "", ("smaller", "larger"))
    '2.9 to 4.2 times'
    >>> interval_text(-0.3, 1.2, "points", ("higher", "lower"))
    'between 0.3 points lower and 1.2 points higher'
    """
    if low < 0 < high:
        sides = [difference_text(end, unit, words) for end in (low, high)]
        return f"between {sides[0]} and {sides[1]}"
    sizes = [_size(end, unit) for end in sorted((low, high), key=abs)]
    return f"{sizes[0]} to {sizes[1]} {unit or 'times'}"


def _size(difference: float, unit: str) -> str:
    size = abs(difference)
    if unit:
        return f"{size:.3g}" if size >= 10 else f"{size:.2g}"
    return fold(math.exp(min(size, 700.0)))


def fold(ratio: float) -> str:
    """A ratio above 1.

    >>> fold(21.27), fold(3.461), fold(1.043), fold(12345.0)
    ('21', '3.5', '1.04', '12,345')
    """
    if ratio >= 1e6:
        return f"{ratio:.1g}"
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


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


def change_size(difference: float, score: Score) -> str:
    """The size of a difference between scores, in the unit of `Score.shown`.

    >>> from anynorm.study.spread import ACCURACY, LOSS
    >>> change_size(-1.06, ACCURACY), change_size(1.5, LOSS), change_size(99.0, LOSS)
    ('1.1 points', '1.5%', '100 times')
    """
    if score.higher_is_better:
        return f"{abs(difference):.1f} points"
    ratio = 1 - difference / 100 if difference < 0 else 1 / max(1 - difference / 100, 1e-300)
    return f"{fold(ratio)} times" if ratio >= 2 else f"{abs(difference):.1f}%"


def _change(difference: float, score: Score) -> str:
    """A difference between scores with its direction; a lower loss is better."""
    if score.higher_is_better:
        return f"{signed(difference)} points"
    return f"{change_size(difference, score)} {'lower' if difference >= 0 else 'higher'}"


def change_interval(low: float, high: float, score: Score) -> str:
    """An interval of such differences.

    >>> from anynorm.study.spread import ACCURACY, LOSS
    >>> change_interval(-0.24, 1.06, ACCURACY), change_interval(-3.0, 1.5, LOSS)
    ('between −0.2 and +1.1 points', 'between 3.0% higher and 1.5% lower')
    """
    ends = [_change(end, score) for end in (low, high)]
    return f"between {ends[0].removesuffix(' points')} and {ends[1]}"


def comparison_text(found: Comparison, score: Score) -> str:
    """A comparison of scores as a difference, with its interval if it has one.

    >>> from anynorm.study.spread import ACCURACY, LOSS
    >>> comparison_text(Comparison("a", "b", "", "better", 2.0, 1.0, 3.0, ""), ACCURACY)
    '+2.0 points (between +1.0 and +3.0 points)'
    >>> comparison_text(Comparison("a", "b", "", "better", 50.0, None, None, ""), LOSS)
    'a loss 2.0 times lower'
    """
    if found.difference is None:
        return "no numeric difference, because runs diverged"
    text = ("" if score.higher_is_better else "a loss ") + _change(found.difference, score)
    if found.low is None or found.high is None:
        return text
    return f"{text} ({change_interval(found.low, found.high, score)})"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def join(names: Sequence[str], most: int | None = None) -> str:
    """Names as a list in a sentence; names beyond `most` are only counted.

    >>> join(["batch", "group", "layer"]), join(["batch", "group", "layer"], most=1)
    ('batch, group and layer', 'batch and 2 others')
    """
    if most is not None and len(names) > most + 1:
        return join([*names[:most], f"{len(names) - most} others"])
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])
