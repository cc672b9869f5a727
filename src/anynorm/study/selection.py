"""Which runs answer which question: the base setting of a study, and the sweeps around it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anynorm.study.cell import label
from anynorm.study.spread import Record, Score, score_of

__all__ = ["Runs", "by_label", "studies", "sweep"]

FACTORS = ("lr", "init", "batch", "placement", "steps", "warmup")
Setting = tuple[Any, ...]


def setting(record: Record) -> Setting:
    """Return what a run was trained with, apart from its normalizer and seed."""
    return tuple(_value(record, factor) for factor in FACTORS)


def _value(record: Record, factor: str) -> Any:
    # Records of runs that had no warm-up may not mention it.
    return _rounded(record["cell"].get(factor, 0))


def _rounded(value: Any) -> Any:
    # A learning rate that came through arithmetic (0.1 * 0.3) must meet the one that was typed.
    return float(f"{value:.6g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class Runs:
    """The runs of one subject on one data set with one optimizer and one weight decay.

    `controls` are the runs with injected noise; they are compared, never ranked.
    """

    subject: str
    data: str
    optimizer: str
    weight_decay: float
    records: Sequence[Record]
    controls: Sequence[Record]
    base: Setting
    score: Score

    @property
    def labels(self) -> list[str]:
        """The normalizers in order of appearance, ``none`` first."""
        found = list(by_label(self.records))
        return sorted(found, key=lambda name: name != "none")

    def at_base(self) -> dict[str, list[Record]]:
        """Return the runs at the base setting, for each normalizer."""
        found = by_label(r for r in self.records if setting(r) == self.base)
        return {name: found[name] for name in self.labels if name in found}

    def base_value(self, factor: str) -> Any:
        """Return the base setting's value of `factor`."""
        return self.base[FACTORS.index(factor)]


def by_label(records: Any) -> dict[str, list[Record]]:
    """Group runs by normalizer, each group in order of seed."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r["cell"]["seed"]):
        groups.setdefault(label(record["cell"]), []).append(record)
    return groups


def studies(records: Sequence[Record]) -> list[Runs]:
    """Split records into one `Runs` for each subject, data set, optimizer and weight decay."""
    groups: dict[tuple[str, str, str, float], list[Record]] = {}
    for record in records:
        cell = record["cell"]
        optimizer = (cell.get("optimizer", "sgd"), cell.get("weight_decay", 0.0))
        groups.setdefault((cell["subject"], cell["data"], *optimizer), []).append(record)
    return [_runs(*key, group) for key, group in groups.items()]


def _runs(
    subject: str, data: str, optimizer: str, weight_decay: float, records: list[Record]
) -> Runs:
    plain = [r for r in records if not r["cell"].get("noise")]
    noisy = [r for r in records if r["cell"].get("noise")]
    base = base_setting(plain or noisy)
    score = score_of(records)
    return Runs(subject, data, optimizer, weight_decay, plain, noisy, base, score)


def base_setting(records: Sequence[Record]) -> Setting:
    """Return the setting that the sweeps start from.

    That is the probed one or, where nothing or everything was probed, the one that shares most
    of its values with the other runs: the centre of a star-shaped grid.
    """
    counts = [Counter(values) for values in zip(*map(setting, records), strict=True)]
    probed = Counter(setting(r) for r in records if r.get("probes"))

    def centrality(candidate: Setting) -> tuple[int, int]:
        shared = sum(count[value] for count, value in zip(counts, candidate, strict=True))
        return probed[candidate], shared

    return max(dict.fromkeys(map(setting, records)), key=centrality)


def sweep(runs: Runs, factor: str) -> list[Record]:
    """Return the runs that differ from the base setting in `factor` alone; ``[]`` if none do.

    A sweep may train for another number of steps than the base, the same for all its runs. With
    the batch size, the learning rate and the number of steps change too: see `batch_sweep`.
    """
    if factor == "batch":
        return batch_sweep(runs)
    fixed = [name for name in FACTORS if name not in (factor, "steps")]
    groups: dict[int, list[Record]] = {}
    for record in runs.records:
        if all(_value(record, name) == runs.base_value(name) for name in fixed):
            groups.setdefault(record["cell"]["steps"], []).append(record)
    return _widest(runs, factor, list(groups.values()))


def batch_sweep(runs: Runs) -> list[Record]:
    """Return the runs whose learning rate scales with the batch size, at equal epochs."""
    fixed = ("init", "placement")
    matching = [
        record
        for record in runs.records
        if all(_value(record, name) == runs.base_value(name) for name in fixed)
    ]
    anchors = dict.fromkeys(_scaling(record["cell"]) for record in matching)
    groups = [[r for r in matching if _same(_scaling(r["cell"]), anchor)] for anchor in anchors]
    return _widest(runs, "batch", groups)


def _scaling(cell: Mapping[str, Any]) -> tuple[float, float]:
    return cell["lr"] / cell["batch"], cell["steps"] * cell["batch"]


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    # The number of steps is a whole number, so the samples seen differ a little.
    return math.isclose(one[0], other[0], rel_tol=0.01) and math.isclose(
        one[1], other[1], rel_tol=0.1
    )


def _widest(runs: Runs, factor: str, groups: list[list[Record]]) -> list[Record]:
    def width(group: list[Record]) -> tuple[int, bool]:
        values = {_value(record, factor) for record in group}
        return len(values), any(setting(record) == runs.base for record in group)

    widest = max(groups, key=width, default=[])
    return widest if widest and width(widest)[0] > 1 else []
