"""Causes that prevent or explain a verdict. The report names them before any ranking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

from anynorm.study.claims.intervals import interval
from anynorm.study.inference import Comparison, Sample
from anynorm.study.selection import Runs, by_label, sweep, uses_no_batch
from anynorm.study.spread import Record, Score, finite
from anynorm.study.wording import join, number, plural

__all__ = ["IDLE", "LAG", "Cause", "causes_in_comparisons", "causes_in_training", "recomputed"]

Groups = Mapping[str, Sequence[Record]]
LAG = "running statistics lag behind"
IDLE = "nothing was learned"

# A gap of this size, in points or %, between running and recomputed statistics is a cause.
_LAG = 1.0
# If the loss falls by this fraction of its first value in the last sixth, it has not converged.
_FALLING = 0.005
_LEARNED = 0.9  # if the loss stays above this fraction of its first value, nothing was learned
_FEW_ITEMS = 100


@dataclass(frozen=True)
class Cause:
    """A cause: its name, the normalizers that it concerns, what was seen, and what to do."""

    name: str
    normalizers: tuple[str, ...]
    sentence: str
    action: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "normalizers": list(self.normalizers)}


def recomputed(score: Score) -> Score:
    """Return the same score with running statistics that were recomputed after training."""
    key = {"test_accuracy": "test_accuracy_recalibrated", "test_loss": "test_loss_recalibrated"}
    return replace(score, key=key[score.key], name=f"{score.name} with recomputed statistics")


def causes_in_training(runs: Runs, groups: Groups) -> list[Cause]:
    """Return the causes that are found in the runs themselves, the most severe first."""
    found = [
        _few_seeds(groups),
        _lag(groups, runs.score),
        _nothing_learned(groups),
        _divergence(groups),
        _undertrained(groups),
        _edge(runs, groups),
    ]
    return [cause for cause in found if cause is not None]


def causes_in_comparisons(
    comparisons: Sequence[Comparison], samples: Mapping[str, Sample], unit: str
) -> list[Cause]:
    """Return the causes why comparisons cannot tell."""
    cause = _few_items(comparisons, samples, unit)
    return [] if cause is None else [cause]


def _lag(groups: Groups, score: Score) -> Cause | None:
    again = recomputed(score)
    late = {
        name: (_middle(records, score), _middle(records, again))
        for name, records in groups.items()
        if _keeps_statistics(records) and _lags(records, score, again)
    }
    if not late:
        return None
    seen = [
        f"{name} scores {_shown(score, before)} with its running statistics and "
        f"{_shown(score, after)} with recomputed ones"
        for name, (before, after) in late.items()
    ]
    return Cause(
        LAG,
        tuple(late),
        f"Running statistics lag behind: {join(seen)}. The comparison uses the recomputed ones.",
        "Recompute the statistics after training (anynorm.recalibrate), train longer, or give "
        "the running statistics a larger momentum.",
    )


def _keeps_statistics(records: Sequence[Record]) -> bool:
    return not uses_no_batch(records[0]["cell"]["norm"])


def _lags(records: Sequence[Record], score: Score, again: Score) -> bool:
    """Whether recomputed statistics are better in the same runs, by more than a trifle."""
    pairs = [(score.outcome(score.value(r)), score.outcome(again.value(r))) for r in records]
    gains = [b - a for a, b in pairs if a is not None and b is not None]
    found = interval(gains)
    if found is None or found.low is None:
        return False
    return found.low > 0 and found.mean > _LAG


def _middle(records: Sequence[Record], score: Score) -> float:
    known = [value for r in records if (value := score.value(r)) is not None]
    return median(known)


def _shown(score: Score, value: float) -> str:
    return f"{100 * value:.1f}%" if score.higher_is_better else number(value)


def _nothing_learned(groups: Groups) -> Cause | None:
    idle = [name for name, records in groups.items() if _is_idle(records)]
    if not idle:
        return None
    return Cause(
        IDLE,
        tuple(idle),
        f"Nothing was learned with {join(idle)}: the training loss did not fall by a tenth.",
        "Try other learning rates (--lrs), more steps (--steps), or check the data.",
    )


def _is_idle(records: Sequence[Record]) -> bool:
    ends = [_ends(record) for record in records if record["status"] == "ok"]
    known = [(first, last) for end in ends if end is not None for first, _, last in [end]]
    return bool(known) and all(last > _LEARNED * first for first, last in known)


def _ends(record: Record) -> tuple[float, float, float] | None:
    """Return the first training loss, and those at the last two evaluations."""
    curve = (record.get("curve") or {}).get("train_loss") or []
    seen = (record.get("evaluations") or {}).get("train_loss") or []
    first = finite(curve[0]) if curve else None
    ends = [finite(value) for value in seen[-2:]]
    if first is None or len(ends) < 2 or ends[0] is None or ends[1] is None:
        return None
    return first, ends[0], ends[1]


def _divergence(groups: Groups) -> Cause | None:
    lost = {
        name: sum(record["status"] != "ok" for record in records)
        for name, records in groups.items()
    }
    lost = {name: count for name, count in lost.items() if count}
    if not lost:
        return None
    seen = [
        f"{name} in {count} of {plural(len(groups[name]), 'run')}" for name, count in lost.items()
    ]
    return Cause(
        "divergence",
        tuple(lost),
        f"Even at the best learning rate that was tried, training diverged for {join(seen)}. "
        "A run that diverged counts as worse than any that finished.",
        "Add smaller learning rates (--lrs), or warm-up (--warmup).",
    )


def _undertrained(groups: Groups) -> Cause | None:
    found = {name: fall for name, records in groups.items() if (fall := _fall(records))}
    if not found:
        return None
    name = max(found, key=lambda label: found[label][2])
    before, after, rate = found[name]
    steps = max(record["cell"]["steps"] for record in groups[name])
    whose = "its" if len(found) == 1 else f"{name}'s"
    return Cause(
        "undertraining",
        tuple(found),
        f"Training has not converged with {join(list(found), most=4)}: {whose} training loss still "
        f"fell from {number(before)} to {number(after)} in the last sixth of the steps "
        f"({number(rate)} per 100 steps).",
        f"Train longer: --steps {2 * steps}.",
    )


def _fall(records: Sequence[Record]) -> tuple[float, float, float] | None:
    """Return the last two training losses and the fall per 100 steps, if the fall matters."""
    ends = [end for r in records if r["status"] == "ok" and (end := _ends(r)) is not None]
    if not ends:
        return None
    first, before, after = (fmean(values) for values in zip(*ends, strict=True))
    if before - after <= _FALLING * first:
        return None
    steps = median(_last_interval(record) for record in records if record["status"] == "ok")
    return before, after, 100 * (before - after) / steps


def _last_interval(record: Record) -> float:
    steps = (record.get("evaluations") or {}).get("step") or []
    return float(steps[-1] - steps[-2]) if len(steps) > 1 else float(record["cell"]["steps"])


def _edge(runs: Runs, groups: Groups) -> Cause | None:
    tried = {
        name: sorted({record["cell"]["lr"] for record in records})
        for name, records in by_label(sweep(runs, "lr")).items()
    }
    ends = {
        name: rate
        for name, records in groups.items()
        for rate in [records[0]["cell"]["lr"]]
        if len(tried.get(name, ())) > 1 and rate in (tried[name][0], tried[name][-1])
    }
    if not ends:
        return None
    seen = [f"{name} at {rate:g}" for name, rate in ends.items()]
    return Cause(
        "learning rate at the edge of the grid",
        tuple(ends),
        f"The best learning rate is the lowest or highest one that was tried: {join(seen)}. "
        "A better one may be outside of this range.",
        f"Try a wider range: --lrs {' '.join(_wider(tried, ends))}.",
    )


def _wider(tried: Mapping[str, Sequence[float]], ends: Mapping[str, float]) -> Iterator[str]:
    rates = {rate for values in tried.values() for rate in values}
    for name, rate in ends.items():
        rates.add(float(f"{rate * (3.0 if rate == tried[name][-1] else 1 / 3):.2g}"))
    return (f"{rate:g}" for rate in sorted(rates))


def _few_seeds(groups: Groups) -> Cause | None:
    few = [name for name, records in groups.items() if len(records) < 2]
    if not few:
        return None
    what = "nothing" if len(few) == len(groups) else f"{join(few)}"
    verb = "can" if len(few) == len(groups) else "cannot"
    return Cause(
        "too few seeds",
        tuple(few),
        f"{join(few)} ran with one seed, which shows no spread: {what} {verb} be compared.",
        "Run at least 3 seeds: --seeds 3.",
    )


def _few_items(
    comparisons: Sequence[Comparison], samples: Mapping[str, Sample], unit: str
) -> Cause | None:
    counts = {s.items.shape[1] for s in samples.values() if s.items is not None}
    stuck = [c for c in comparisons if c.answer == "cannot tell" and c.low is not None]
    stuck = [c for c in stuck if c.seeds is None]
    if not counts or not (stuck or min(counts) < _FEW_ITEMS):
        return None
    names = dict.fromkeys(name for c in stuck for name in (c.a, c.b))
    open_ends = [c.not_excluded for c in stuck if c.not_excluded is not None]
    limit = f": up to {max(open_ends):.1f} {unit} cannot be excluded" if open_ends else ""
    return Cause(
        "too few held-out samples",
        tuple(names),
        f"There are {min(counts)} held-out samples, and other samples would give other "
        f"differences{limit}, whatever the number of seeds.",
        "Hold out more samples, or pool several held-out sets.",
    )
