"""Choose each normalizer's own learning rate by its training loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anynorm.study.selection import Runs, by_label, sweep
from anynorm.study.spread import Record, final

__all__ = ["at_own_rate"]


def at_own_rate(runs: Runs) -> dict[str, list[Record]]:
    """Return each normalizer's runs at its best learning rate.

    Among the rates at which the fewest seeds diverged, it is the one with the lowest training loss.
    Held-out data are not used. Without a sweep it is the learning rate of the base setting.
    """
    return {name: _chosen(records) for name, records in by_label(_candidates(runs)).items()}


def _candidates(runs: Runs) -> Sequence[Record]:
    found = sweep(runs, "lr")
    return found or [record for records in runs.at_base().values() for record in records]


def _chosen(records: Sequence[Record]) -> list[Record]:
    rates: dict[float, list[Record]] = {}
    for record in records:
        rates.setdefault(record["cell"]["lr"], []).append(record)
    # A rate with only one or two seeds, as in an interrupted study, must not win by chance.
    most = max(map(len, rates.values()))
    enough = [group for group in rates.values() if 2 * len(group) >= most]
    return min(enough, key=lambda group: _training_order(_shared(group, enough)))


def _shared(group: Sequence[Record], groups: Sequence[Sequence[Record]]) -> list[Record]:
    """Return the runs with seeds that all groups have, so that later seeds change no choice."""
    seeds = set.intersection(*({r["cell"]["seed"] for r in other} for other in groups))
    return [record for record in group if record["cell"]["seed"] in seeds] or list(group)


def _training_order(records: Sequence[Record]) -> tuple[float, float]:
    loss = final(records, "train_loss")
    lost = loss["diverged"] / loss["n"]
    return lost, math.inf if loss["median"] is None else loss["median"]
