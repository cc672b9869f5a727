"""Which normalizer to use: from the comparisons, then from what else was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anynorm.catalogue import catalogue
from anynorm.study.inference import Comparison
from anynorm.study.wording import fold

__all__ = ["NONE", "Choice", "choose", "wider"]

NONE = "none"
# Half a decade is one step of the grid of learning rates: less is no difference.
_GRID_STEP = 3.0
# Points of error at a small batch that make it a limit.
_RISE = 5.0
# What people know comes first where nothing else decides.
_FAMILIAR = ("batch", "layer", "group", "rms", "instance", "weight")

_RANGES = {
    "lr_tolerance": "it trains well at learning rates",
    "init_tolerance": "it trains well from initial weights multiplied by",
}

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """What to use and why.

    `kind` is ``use`` (the score is better than without normalization, or than with any other),
    ``prefer`` (the score does not decide, something else that was measured does), ``no benefit``
    (every normalizer was shown to be equivalent or harmful) or ``undecided``.
    """

    kind: str
    name: str | None
    reasons: list[str] = field(default_factory=list)


def choose(entries: Sequence[Entry], comparisons: Sequence[Comparison]) -> Choice:
    """Return the normalizer to use.

    A normalizer that was shown to be worse than another is never chosen. Among the others those
    that were shown to be better than none come first; then those that train in a range of learning
    rates, or of initial scales, at least three times as wide, or in fewer steps; then those that
    hold at small batches; then the more familiar one.
    """
    by_name = {entry["label"]: entry for entry in entries}
    if min(entry["score"]["n"] for entry in entries) < 2:
        return Choice("undecided", None)  # one run shows no spread, of anything
    pool = [name for name in by_name if name not in _worse(comparisons)]
    better = [c.a for c in comparisons if c.b == NONE and c.answer == "better" and c.a in pool]
    if better:
        return Choice("use", _first([by_name[name] for name in better]))
    if NONE not in by_name:
        return _without_none(by_name, pool, comparisons)
    return _beside_none(by_name, pool, comparisons)


def _worse(comparisons: Sequence[Comparison]) -> set[str]:
    """Return the normalizers that were shown to be worse than none or than the best."""
    worse = {c.a for c in comparisons if c.answer == "harmful"}
    beaten = any(c.b == NONE and c.answer == "better" for c in comparisons)
    return worse | ({NONE} if beaten else set())


def _without_none(
    by_name: Mapping[str, Entry], pool: Sequence[str], comparisons: Sequence[Comparison]
) -> Choice:
    if len(pool) == 1 and len(by_name) > 1:
        return Choice("use", pool[0])
    first = _first([by_name[name] for name in pool]) if pool else None
    others = [by_name[name] for name in pool if name != first]
    if first is None or not others:
        return Choice("undecided", None)
    reasons = _advantages(by_name[first], others)
    equal = all(c.answer in ("equivalent", "harmful") for c in comparisons)
    return Choice(
        "prefer" if reasons or equal else "undecided", first if reasons or equal else None, reasons
    )


def _beside_none(
    by_name: Mapping[str, Entry], pool: Sequence[str], comparisons: Sequence[Comparison]
) -> Choice:
    none = by_name[NONE]
    helpful = [
        by_name[name] for name in pool if name != NONE and _advantages(by_name[name], [none])
    ]
    if helpful:
        name = _first(helpful)
        return Choice("prefer", name, _advantages(by_name[name], [none]))
    against_none = [c for c in comparisons if c.b == NONE]
    settled = all(c.answer in ("equivalent", "harmful") for c in against_none)
    if against_none and settled:
        return Choice("no benefit", NONE)
    return Choice("undecided", None)


def _first(entries: Sequence[Entry]) -> str:
    """Return the preferred one of some that the score does not tell apart."""
    left = list(entries)
    for width in (_width("lr_tolerance"), _width("init_tolerance")):
        widest = max(map(width, left))
        left = [entry for entry in left if width(entry) * _GRID_STEP >= widest]
    quickest = min(map(_steps, left))
    left = [entry for entry in left if _steps(entry) <= 1.25 * quickest]
    steadiest = min(map(_small_batch_rise, left))
    left = [entry for entry in left if _small_batch_rise(entry) <= steadiest + _RISE]
    return str(min(left, key=_familiarity)["label"])


def _width(key: str) -> Callable[[Entry], float]:
    """Return a function that gives the k of a range "k-fold"; 1 where nothing was measured."""

    def width(entry: Entry) -> float:
        found = entry[key]
        if not found or found["low"] is None:
            return 0.0 if found else 1.0
        return float(found["high"] / found["low"])

    return width


def _steps(entry: Entry) -> float:
    """Return the steps to a common loss beside those without normalization; 1 where unknown."""
    found = entry.get("convergence")
    if not found or found["answer"] == "cannot tell" or found["ratio"] is None:
        return 1.0
    return float(found["ratio"])


def _small_batch_rise(entry: Entry) -> float:
    found = entry["small_batch"]
    if not found:
        return 0.0
    return 100.0 if found["median"] is None else float(found["median"])


def _familiarity(entry: Entry) -> tuple[int, int]:
    name = str(entry["label"]).partition("(")[0].partition(",")[0]
    known = list(catalogue)
    return (
        _FAMILIAR.index(name) if name in _FAMILIAR else len(_FAMILIAR),
        known.index(name) if name in known else len(known),
    )


def _advantages(entry: Entry, others: Sequence[Entry]) -> list[str]:
    """Return in words where a normalizer is ahead of all others, by more than noise.

    Faster training alone is no reason: it is named beside a wider range.
    """
    found = [words for key in _RANGES if (words := _wider(key, entry, others))]
    return [*found, *_faster(entry, others)] if found else []


def _wider(key: str, entry: Entry, others: Sequence[Entry]) -> str:
    width = _width(key)
    if not entry[key] or any(not other[key] for other in others):
        return ""
    second = max(others, key=width)
    # A third of a per cent leaves room for the rounding of rates such as 0.03 and 0.1.
    enough = width(entry) > 0.997 * _GRID_STEP * max(width(second), 1.0)
    return wider(key, entry, second) if enough else ""


def wider(key: str, entry: Entry, other: Entry) -> str:
    """Return the range in which one normalizer trains well, and that of another."""
    text = other[key]["text"]
    if text == "nowhere":
        return f"{_RANGES[key]} {entry[key]['text']}, {other['label']} at none that was tried"
    return f"{_RANGES[key]} {entry[key]['text']}, against {text} for {other['label']}"


def _faster(entry: Entry, others: Sequence[Entry]) -> list[str]:
    found = entry.get("convergence")
    if not found or found["answer"] != "better" or [o["label"] for o in others] != [NONE]:
        return []
    if found["ratio"] is None:
        return ["it reaches a training loss that none does not reach"]
    return [f"it reaches the same training loss {fold(1 / found['ratio'])} times sooner"]
