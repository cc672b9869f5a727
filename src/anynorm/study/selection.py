"""Select the runs for a question: those at the base setting, and the sweeps around it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anynorm.catalogue import catalogue
from anynorm.study.cell import label
from anynorm.study.readable import readable
from anynorm.study.spread import Record, Score, score_of

__all__ = [
    "Runs",
    "batch_sweep",
    "by_label",
    "norm_of",
    "setting",
    "studies",
    "sweep",
    "uses_no_batch",
]

FACTORS = ("lr", "init", "batch", "placement", "steps", "warmup")
Setting = tuple[Any, ...]


def setting(record: Record) -> Setting:
    """Return the setting of a run, apart from its normalizer and seed."""
    return tuple(_value(record, factor) for factor in FACTORS)


def _value(record: Record, factor: str) -> Any:
    # Records of runs without warm-up may not have the field.
    return _rounded(record["cell"].get(factor, 0))


def _rounded(value: Any) -> Any:
    # A learning rate from arithmetic (0.1 * 0.3) must equal the one that was typed.
    return float(f"{value:.6g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class Runs:
    """The runs of one subject on one data set with one optimizer and one weight decay.

    `controls` are the runs of normalizers that were changed for an experiment, by injected noise
    or by fixed γ and β; they are compared, never ranked.
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
        return list(_none_first(by_label(self.records)))

    def at_base(self) -> dict[str, list[Record]]:
        """Return the runs at the base setting, for each normalizer."""
        return self.at()

    def at(self, **changes: Any) -> dict[str, list[Record]]:
        """Return the runs at the base setting with `changes`, for each normalizer."""
        return _in_order(self.records, self._setting(changes))

    def controls_at(self, **changes: Any) -> dict[str, list[Record]]:
        """Return the controls at the base setting with `changes`, for each control."""
        return _in_order(self.controls, self._setting(changes))

    def _setting(self, changes: Mapping[str, Any]) -> Setting:
        pairs = zip(FACTORS, self.base, strict=True)
        return tuple(_rounded(changes.get(factor, value)) for factor, value in pairs)

    def base_value(self, factor: str) -> Any:
        """Return the base setting's value of `factor`."""
        return self.base[FACTORS.index(factor)]


def by_label(records: Any) -> dict[str, list[Record]]:
    """Group runs by normalizer, each group in order of seed."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r["cell"]["seed"]):
        groups.setdefault(label(record["cell"]), []).append(record)
    return groups


def uses_no_batch(name: str) -> bool:
    """Whether a normalizer, by its label, takes no statistics over the batch.

    >>> uses_no_batch("group(groups=4)"), uses_no_batch("batch + noise"), uses_no_batch("zca")
    (True, False, False)
    """
    norm = norm_of(name)
    return norm in catalogue and not catalogue[norm].state


def norm_of(name: str) -> str:
    """Return the name in the catalogue that a label begins with.

    >>> norm_of("group(groups=4)"), norm_of("batch + noise"), norm_of("batch, no γ β")
    ('group', 'batch', 'batch')
    """
    return name.partition("(")[0].partition(",")[0].partition(" +")[0]


def _in_order(records: Sequence[Record], wanted: Setting) -> dict[str, list[Record]]:
    return _none_first(by_label(r for r in records if setting(r) == wanted))


def _none_first(groups: Mapping[str, list[Record]]) -> dict[str, list[Record]]:
    return dict(sorted(groups.items(), key=lambda item: item[0] != "none"))


def studies(records: Iterable[Record], margin: float | None = None) -> list[Runs]:
    """Split records into one `Runs` for each subject, data set, optimizer and weight decay.

    Records that cannot be read are left out; see `anynorm.study.readable`. Differences between
    scores within ± `margin` do not count: in points of accuracy (by default 0.5) or in per cent of
    a loss (2).
    """
    groups: dict[tuple[str, str, str, float], list[Record]] = {}
    for record in readable(records).records:
        cell = record["cell"]
        optimizer = (cell.get("optimizer", "sgd"), cell.get("weight_decay", 0.0))
        groups.setdefault((cell["subject"], cell["data"], *optimizer), []).append(record)
    found = [_runs(*key, group) for key, group in groups.items()]
    if margin is None:
        return found
    return [replace(runs, score=replace(runs.score, equal_within=margin)) for runs in found]


def _runs(
    subject: str, data: str, optimizer: str, weight_decay: float, records: list[Record]
) -> Runs:
    plain = [r for r in records if not is_control(r)]
    changed = [r for r in records if is_control(r)]
    base = base_setting(plain or changed, changed)
    score = score_of(records)
    return Runs(subject, data, optimizer, weight_decay, plain, changed, base, score)


def is_control(record: Record) -> bool:
    """Whether the normalizer of a run was changed for an experiment."""
    cell = record["cell"]
    return bool(cell.get("noise")) or not cell.get("affine", True)


def base_setting(records: Sequence[Record], controls: Sequence[Record] = ()) -> Setting:
    """Return the setting from which the sweeps start.

    It is the setting at which most normalizers were probed; experiments probe only two elsewhere.
    If there are several, these rules decide, in this order: unscaled weights; most normalizers
    trained, since batch sizes are compared only for some; most values shared with the other runs,
    as at the centre of a star-shaped grid; no run of the noisy control.
    """
    counts = [Counter(values) for values in zip(*map(setting, records), strict=True)]
    probed = {(setting(r), label(r["cell"])) for r in records if r.get("probes")}
    normalizers = Counter(where for where, _ in probed)
    trained = Counter(where for where, _ in {(setting(r), label(r["cell"])) for r in records})
    noisy = {setting(r) for r in controls if r["cell"].get("noise")}

    def rank(candidate: Setting) -> tuple[int, bool, int, int, bool]:
        unscaled = candidate[FACTORS.index("init")] == 1
        shared = sum(count[value] for count, value in zip(counts, candidate, strict=True))
        counted = normalizers[candidate], unscaled, trained[candidate]
        return *counted, shared, candidate not in noisy

    return max(dict.fromkeys(map(setting, records)), key=rank)


def sweep(runs: Runs, factor: str) -> list[Record]:
    """Return the runs that differ from the base setting only in `factor`; ``[]`` if none do.

    A sweep may have another number of steps than the base, but the same for all its runs. In a
    sweep of the batch size, the learning rate and the number of steps change too: see
    `batch_sweep`.
    """
    if factor == "batch":
        return batch_sweep(runs)
    fixed = [name for name in FACTORS if name not in (factor, "steps")]
    groups: dict[int, list[Record]] = {}
    for record in runs.records:
        if all(_value(record, name) == runs.base_value(name) for name in fixed):
            groups.setdefault(record["cell"]["steps"], []).append(record)
    return _widest(runs, factor, list(groups.values()))


def batch_sweep(runs: Runs, budget: str = "epochs") -> list[Record]:
    """Return the runs whose learning rate scales with the batch size, at equal epochs or steps."""
    fixed = ("init", "placement")
    matching = [
        record
        for record in runs.records
        if all(_value(record, name) == runs.base_value(name) for name in fixed)
    ]
    scalings = [(_scaling(record["cell"], budget), record) for record in matching]
    anchors = dict.fromkeys(scaling for scaling, _ in scalings)
    groups = [[r for scaling, r in scalings if _same(scaling, anchor)] for anchor in anchors]
    return _widest(runs, "batch", groups)


def _scaling(cell: Mapping[str, Any], budget: str) -> tuple[float, float]:
    """Return what is constant in a sweep of batch sizes: scaled learning rate, epochs or steps."""
    held = cell["steps"] * cell["batch"] if budget == "epochs" else cell["steps"]
    return cell["lr"] / cell["batch"], held


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    # The number of steps is an integer, so the numbers of samples differ slightly.
    return math.isclose(one[0], other[0], rel_tol=0.01) and math.isclose(
        one[1], other[1], rel_tol=0.1
    )


def _widest(runs: Runs, factor: str, groups: list[list[Record]]) -> list[Record]:
    def width(group: list[Record]) -> tuple[int, bool]:
        values = {_value(record, factor) for record in group}
        return len(values), any(setting(record) == runs.base for record in group)

    widest = max(groups, key=width, default=[])
    return widest if widest and width(widest)[0] > 1 else []
