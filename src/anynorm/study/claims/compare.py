"""One quantity of every normalizer beside the model without normalization, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from anynorm.study.claims.question import Table, table
from anynorm.study.spread import Spread
from anynorm.study.wording import join, spread_text, times

__all__ = ["compare", "comparison_table", "ratio"]

NONE = "none"
NAMED = 3  # normalizers that a sentence names; the table has them all


def ratio(reference: Spread, other: Spread) -> tuple[float, float, float] | None:
    """Return reference / other: of the medians, and the smallest and largest that seeds allow.

    ``None`` where a median fell on a diverged run or is zero.
    """
    if not reference["median"] or not other["median"]:
        return None
    low, high = _end(reference, "low") / _end(other, "high"), math.inf
    if other["low"]:
        high = _end(reference, "high") / other["low"]
    return reference["median"] / other["median"], low, high


def _end(seeds: Spread, key: str) -> float:
    return math.inf if seeds[key] is None else float(seeds[key])


def compare(quantity: str, spreads: Mapping[str, Spread]) -> str:
    """Return the sentence that says which normalizers lower `quantity`, which raise it.

    "Lower" and "higher" mean in every seed; ranges that overlap are called not separated.
    """
    if NONE not in spreads or len(spreads) == 1:
        return f"{quantity}: {_listed(spreads)}."
    reference = spreads[NONE]
    others = {name: seeds for name, seeds in spreads.items() if name != NONE}
    parts = [
        f"{quantity} without normalization: {spread_text(reference)}.",
        _side("Lower in every seed", others, reference, _below),
        _side("Higher in every seed", others, reference, lambda a, b: _below(b, a)),
        _unclear([name for name, seeds in others.items() if _overlap(seeds, reference)]),
    ]
    return " ".join(part for part in parts if part)


def _listed(spreads: Mapping[str, Spread]) -> str:
    return ", ".join(f"{name} {spread_text(seeds)}" for name, seeds in spreads.items())


def _below(one: Spread, other: Spread) -> bool:
    return _end(one, "high") < _end(other, "low")


def _overlap(one: Spread, other: Spread) -> bool:
    return not _below(one, other) and not _below(other, one)


def _side(
    words: str,
    others: Mapping[str, Spread],
    reference: Spread,
    belongs: Callable[[Spread, Spread], bool],
) -> str:
    chosen = [name for name, seeds in others.items() if belongs(seeds, reference)]
    if not chosen:
        return ""
    chosen.sort(key=lambda name: -_distance(reference, others[name]))
    texts = [_factor(name, reference, others[name]) for name in chosen]
    return f"{words}: {join(texts, most=NAMED)}."


def _unclear(names: Sequence[str]) -> str:
    return f"Not separated: {join(names, most=NAMED)}." if names else ""


def _distance(reference: Spread, seeds: Spread) -> float:
    found = ratio(reference, seeds)
    return abs(math.log(found[0])) if found and found[0] > 0 else math.inf


def _factor(name: str, reference: Spread, seeds: Spread) -> str:
    found = ratio(reference, seeds)
    if found is None:
        return f"{name} {spread_text(seeds)}"
    below = found[0] >= 1
    factor = f"{times(found[0])} lower" if below else f"{times(1 / found[0])} higher"
    if factor.startswith("1.0×"):
        return f"{name} {spread_text(seeds)}"
    return f"{name} {spread_text(seeds)} ({factor})"


def comparison_table(quantity: str, spreads: Mapping[str, Spread]) -> Table:
    """Return medians and ranges, with the ratio none / normalizer and the range seeds allow."""
    columns = ["normalizer", "seeds", "diverged", "median", "low", "high"]
    columns += ["none / normalizer", "lowest ratio", "highest ratio"]
    rows: list[Sequence[object]] = []
    for name, seeds in spreads.items():
        found = ratio(spreads[NONE], seeds) if NONE in spreads else None
        numbers = [seeds[key] for key in ("n", "diverged", "median", "low", "high")]
        rows.append([name, *numbers, *(found or (None, None, None))])
    return table(quantity, columns, rows)
