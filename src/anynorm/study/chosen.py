"""Each normalizer at its own learning rate, which its training loss chooses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anynorm.study.selection import Runs, by_label, sweep
from anynorm.study.spread import Record, final

__all__ = ["at_own_rate"]


def at_own_rate(runs: Runs) -> dict[str, list[Record]]:
    """Return each normalizer's runs at the learning rate that suits its training best.

    That is the one with the lowest training loss among those at which the fewest seeds diverged.
    Held-out data choose nothing. Without a sweep of learning rates it is the base setting's.
    """
    return {name: _chosen(records) for name, records in by_label(_candidates(runs)).items()}


def _candidates(runs: Runs) -> Sequence[Record]:
    found = sweep(runs, "lr")
    return found or [record for records in runs.at_base().values() for record in records]


def _chosen(records: Sequence[Record]) -> list[Record]:
    rates: dict[float, list[Record]] = {}
    for record in records:
        rates.setdefault(record["cell"]["lr"], []).append(record)
    # A rate with a seed or two of a study that was interrupted must not win by luck.
    most = max(map(len, rates.values()))
    enough = [group for group in rates.values() if 2 * len(group) >= most]
    return min(enough, key=lambda group: _training_order(_shared(group, enough)))


def _shared(group: Sequence[Record], groups: Sequence[Sequence[Record]]) -> list[Record]:
    """Return the runs with seeds that all groups have: seeds that came later change no choice."""
    seeds = set.intersection(*({r["cell"]["seed"] for r in other} for other in groups))
    return [record for record in group if record["cell"]["seed"] in seeds] or list(group)


def _training_order(records: Sequence[Record]) -> tuple[float, float]:
    loss = final(records, "train_loss")
    lost = loss["diverged"] / loss["n"]
    return lost, math.inf if loss["median"] is None else loss["median"]
