"""Which normalizer to use: by the comparisons of scores, then by the other measurements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anynorm.catalogue import catalogue
from anynorm.study.inference import Comparison
from anynorm.study.selection import norm_of
from anynorm.study.spread import Score
from anynorm.study.wording import fold

__all__ = ["MUCH", "NONE", "Choice", "choose", "is_wider", "wider"]

NONE = "none"
# Half a decade is one step of the grid of learning rates: smaller differences do not count.
_GRID_STEP = 3.0
# A loss of more than this many margins is too much: of the score of a normalizer that is preferred
# for another reason, beside none's, and of the score at a small batch size, beside the usual one.
MUCH = 10.0
# If nothing else decides, the more familiar normalizer comes first.
_FAMILIAR = ("batch", "layer", "group", "rms", "instance", "weight")

_RANGES = {
    "lr_tolerance": "it trains well at learning rates",
    "init_tolerance": "it trains well at initial scales",
}

Entry = Mapping[str, Any]
Cost = Callable[[Entry], float | None]


@dataclass(frozen=True)
class Choice:
    """What to use and why.

    `kind` is ``use`` (the score is better than without normalization, or than with any other),
    ``prefer`` (the score does not decide, but another measurement does), ``no benefit``
    (every normalizer was shown to be equivalent or harmful) or ``undecided``.
    """

    kind: str
    name: str | None
    reasons: list[str] = field(default_factory=list)


def choose(
    entries: Sequence[Entry],
    comparisons: Sequence[Comparison],
    score: Score,
    *,
    idle: Collection[str] = (),
) -> Choice:
    """Return the normalizer to use.

    A normalizer that was shown to be worse than another, or that learned nothing (`idle`), is never
    chosen. Among the others, those that were shown to be better than none come first. Several are
    ordered by a usable range of learning rates, then of initial scales, that is at least three
    times as wide, by fewer training steps, by less loss at small batches, and by familiarity.
    """
    # A single run has no spread, so it cannot be compared.
    by_name = {entry["label"]: entry for entry in entries if entry["score"]["n"] > 1}
    if all(entry["score"]["median"] is None for entry in by_name.values()):
        return Choice("undecided", None)
    barred = {*_worse(comparisons), *idle}
    pool = [name for name in by_name if name not in barred]
    better = [c.a for c in comparisons if c.b == NONE and c.answer == "better" and c.a in pool]
    if better:
        return Choice("use", _first([by_name[name] for name in better], score))
    if NONE not in by_name:
        return _without_none(by_name, pool, comparisons, score)
    return _beside_none(by_name, pool, comparisons, score)


def _worse(comparisons: Sequence[Comparison]) -> set[str]:
    """Return the normalizers that were shown to be worse than none or than the best."""
    worse = {c.a for c in comparisons if c.answer == "harmful"}
    beaten = any(c.b == NONE and c.answer == "better" for c in comparisons)
    return worse | ({NONE} if beaten else set())


def _without_none(
    by_name: Mapping[str, Entry],
    pool: Sequence[str],
    comparisons: Sequence[Comparison],
    score: Score,
) -> Choice:
    if len(pool) == 1 and len(by_name) > 1:
        return Choice("use", pool[0])
    settled = all(c.answer in ("equivalent", "harmful") for c in comparisons)
    if pool and comparisons and settled:
        return Choice("prefer", _first([by_name[name] for name in pool], score))
    return Choice("undecided", None)


def _beside_none(
    by_name: Mapping[str, Entry],
    pool: Sequence[str],
    comparisons: Sequence[Comparison],
    score: Score,
) -> Choice:
    none = by_name[NONE]
    against_none = [c for c in comparisons if c.b == NONE]
    # A wider range is no reason if the score may be much worse.
    limit = MUCH * score.equal_within
    safe = {c.a for c in against_none if c.low is not None and c.low > -limit}
    helpful = [by_name[name] for name in pool if name in safe and _advantages(by_name[name], none)]
    if helpful:
        name = _first(helpful, score)
        return Choice("prefer", name, _advantages(by_name[name], none))
    settled = all(c.answer in ("equivalent", "harmful") for c in against_none)
    if against_none and settled:
        return Choice("no benefit", NONE)
    return Choice("undecided", None)


def _first(entries: Sequence[Entry], score: Score) -> str:
    """Return the preferred one of several normalizers that the score does not separate.

    A quantity counts only if it was measured for all normalizers that are left.
    """
    left = list(entries)
    for cost, factor in _costs(score):
        costs = [cost(entry) for entry in left]
        if None not in costs:
            least = min(known for known in costs if known is not None)
            pairs = zip(left, costs, strict=True)
            left = [e for e, known in pairs if known is not None and known <= factor * least]
    return str(min(left, key=_familiarity)["label"])


def _narrowness(key: str) -> Cost:
    """Return a function that gives 1/k for a usable range whose ends are k-fold apart."""

    def narrowness(entry: Entry) -> float | None:
        found = entry[key]
        if not found:
            return None
        return 1e9 if found["low"] is None else float(found["low"] / found["high"])

    return narrowness


def _steps(entry: Entry) -> float | None:
    """Return the ratio of the steps to a common loss to those without normalization."""
    found = entry.get("convergence")
    if not found:
        return None
    if found["answer"] == "cannot tell":
        return 1.0
    return 1e9 if found["ratio"] is None else float(found["ratio"])


def _small_batch(floor: float) -> Cost:
    """Return a function that gives the loss of score at the smallest batch, at least `floor`."""

    def loss(entry: Entry) -> float | None:
        found = entry["small_batch"]
        if not found:
            return None
        return 1e9 if found["median"] is None else max(float(found["median"]), floor)

    return loss


def _costs(score: Score) -> Sequence[tuple[Cost, float]]:
    """Return the costs in the order in which they decide, and the factor that is a difference.

    A smaller factor is noise: a range may end one value of the grid sooner by chance. Learning
    rates are a little over three times apart (0.3 stands for the root of 0.1), initial scales up
    to ten times.
    """
    return (
        (_narrowness("lr_tolerance"), 1.2 * _GRID_STEP),
        (_narrowness("init_tolerance"), 12.0),
        (_steps, 2.0),
        (_small_batch(MUCH * score.equal_within), 2.0),
    )


def _familiarity(entry: Entry) -> tuple[int, int]:
    name = norm_of(entry["label"])
    known = list(catalogue)
    return (
        _FAMILIAR.index(name) if name in _FAMILIAR else len(_FAMILIAR),
        known.index(name) if name in known else len(known),
    )


def _advantages(entry: Entry, none: Entry) -> list[str]:
    """Return in words in what a normalizer is better than none, beyond the noise of the seeds.

    Faster training alone is no reason: it is only named together with a wider range.
    """
    found = [words for key in _RANGES if (words := _wider(key, entry, none))]
    return [*found, *_faster(entry)] if found else []


def _wider(key: str, entry: Entry, none: Entry) -> str:
    if not entry[key] or not none[key] or entry[key]["answer"] != "better":
        return ""
    return wider(key, entry, none) if is_wider(key, entry, none) else ""


def is_wider(key: str, entry: Entry, none: Entry) -> bool:
    """Whether a normalizer's range is at least three times as wide as without normalization."""
    here, there = _narrowness(key)(entry), _narrowness(key)(none)
    if here is None or there is None:
        return False
    return 0.99 * _GRID_STEP * here <= min(there, 1.0)


def wider(key: str, entry: Entry, none: Entry) -> str:
    """Return the range in which a normalizer trains well, and that without normalization."""
    text = none[key]["text"]
    if text == "nowhere":
        text = "at none that was tried"
    elif not text.startswith("from"):
        text = f"at {text}"
    return f"{_RANGES[key]} {entry[key]['text']}, without normalization {text}"


def _faster(entry: Entry) -> list[str]:
    found = entry.get("convergence")
    if not found or found["answer"] != "better":
        return []
    if found["ratio"] is None:
        return ["it reaches a training loss that is not reached without normalization"]
    return [f"it reaches the same training loss {fold(1 / found['ratio'])} times sooner"]
