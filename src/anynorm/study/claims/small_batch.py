"""Small batches: is it noise in training, lagging statistics, or a net that does not train?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from anynorm.study.claims.curves import panel
from anynorm.study.claims.intervals import Interval, cells, interval, interval_text
from anynorm.study.claims.question import Answer, Question, Table, ends, table
from anynorm.study.inference import Comparison, Sample, against_control
from anynorm.study.samples import in_shown_unit
from anynorm.study.selection import Runs, batch_sweep, by_label, uses_no_batch
from anynorm.study.spread import ACCURACY, LOSS, Record, Score, Spread, final_value, spread
from anynorm.study.tolerance import points
from anynorm.study.wording import comparison_text, join, plural

__all__ = ["MODES", "QUESTIONS", "Parts", "batch_effects", "parts"]

REFERENCE_BATCH = 32
# The keys of a record's final accuracy, by the statistics that a normalizer uses.
MODES = {
    "evaluation mode": "test_accuracy",
    "training mode": "test_accuracy_train_mode",
    "recomputed statistics": "test_accuracy_recalibrated",
}
EVALUATION, TRAINING, RECOMPUTED = MODES
Groups = dict[int, list[Record]]


def batch_effects(
    runs: Runs, scores: Mapping[str, Score] = MappingProxyType({})
) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Return the reference batch size, and each normalizer's change of error from it.

    `scores` has the score of a normalizer, if it is not the score of the study.

    The change is in points of error or, for a held-out loss, 100 times its logarithm. It is
    measured at equal epochs or, if these runs do not exist, at equal steps.
    """
    records = batch_sweep(runs) or batch_sweep(runs, "steps")
    if not records:
        return REFERENCE_BATCH, {}
    reference = _reference({record["cell"]["batch"] for record in records})
    effects = {}
    for name, group in by_label(records).items():
        score = scores.get(name, runs.score)
        effects[name] = _effects(points(group, "batch", score)[name], reference, score)
    return reference, {name: row for name, row in effects.items() if row}


def _reference(sizes: set[int]) -> int:
    return int(min(sizes, key=lambda size: abs(math.log(size / REFERENCE_BATCH))))


def _effects(row: Sequence[Spread], reference: int, score: Score) -> list[dict[str, Any]]:
    centre = next((point["median"] for point in row if point["value"] == reference), None)
    if centre is None:
        return []
    return [
        {
            "value": point["value"],
            **spread(
                [_rise(value, centre, score) for value in point["values"]], higher_is_better=False
            ),
        }
        for point in row
    ]


def _rise(value: float | None, reference: float | None, score: Score) -> float | None:
    """Return how much worse a score is than the reference, in the unit of its differences."""
    here, there = score.outcome(value), score.outcome(reference)
    return None if here is None or there is None else there - here


class Parts(NamedTuple):
    """The rise of the error of one normalizer from the reference to a small batch, in parts.

    `lagging` is the part that disappears when the statistics are recomputed, `remaining` is the
    rise of the error with recomputed statistics. `trains` is False if the net gets less than half
    of the way from guessing to its accuracy at the reference, in every mode.
    """

    rise: Interval | None
    lagging: Interval | None
    remaining: Interval | None
    trains: bool


def parts(here: Sequence[Record], reference: Sequence[Record]) -> Parts:
    """Split the rise of the error, in points, from the runs at `reference` to those `here`.

    Runs are paired by their seed, so that each part is a difference within one seed.
    """
    pairs = list(_paired(here, reference))
    before = {mode: [_error(there, mode) for _, there in pairs] for mode in MODES}
    after = {mode: [_error(small, mode) for small, _ in pairs] for mode in MODES}
    return Parts(
        interval(rise := _minus(after[EVALUATION], before[EVALUATION])),
        interval(_minus(rise, left := _minus(after[RECOMPUTED], before[RECOMPUTED]))),
        interval(left),
        _trains(after, before[RECOMPUTED], reference[0].get("chance") or 0.0),
    )


def _paired(here: Sequence[Record], reference: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    by_seed = {record["cell"]["seed"]: record for record in reference}
    for record in here:
        if (there := by_seed.get(record["cell"]["seed"])) is not None:
            yield record, there


def _error(record: Record, mode: str) -> float | None:
    value = final_value(record, MODES[mode])
    return None if value is None else 100 * (1 - value)


def _minus(one: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    pairs = zip(one, other, strict=True)
    return [None if a is None or b is None else a - b for a, b in pairs]


def _trains(
    after: Mapping[str, Sequence[float | None]], before: Sequence[float | None], chance: float
) -> bool:
    usual = interval(before)
    means = [found.mean for errors in after.values() if (found := interval(errors))]
    if usual is None or not means:
        return False
    return min(means) < (usual.mean + 100 * (1 - chance)) / 2


class _Sweep(NamedTuple):
    """One sweep over batch sizes: its runs by normalizer and batch size."""

    budget: str
    runs: dict[str, Groups]
    reference: int
    smallest: int


def _sweep(runs: Runs, budget: str) -> _Sweep | None:
    """Return the sweep if it goes below its reference."""
    records = batch_sweep(runs, budget)
    sizes = {record["cell"]["batch"] for record in records}
    if not records or min(sizes) >= _reference(sizes):
        return None
    groups = {name: _by_size(group) for name, group in by_label(records).items()}
    # A normalizer that ran only at the base's batch size has nothing to compare.
    groups = {name: by_size for name, by_size in groups.items() if len(by_size) > 1}
    return _Sweep(budget, groups, _reference(sizes), min(sizes))


def _by_size(records: Sequence[Record]) -> Groups:
    groups: Groups = {}
    for record in sorted(records, key=lambda r: r["cell"]["batch"]):
        groups.setdefault(record["cell"]["batch"], []).append(record)
    return groups


def _batch(runs: Runs, budget: str) -> Answer | str:
    sweep = _sweep(runs, budget)
    if sweep is None:
        return (
            f"only one batch size was run at equal {budget} with a learning rate in proportion to "
            "it. --batches with two sizes or more would measure it."
        )
    panels = [panel(*item) for item in _curves(sweep, runs.score)]
    sizes = sorted({size for groups in sweep.runs.values() for size in groups})
    axis = {"title": "batch size", "log": True, "ticks": sizes}
    figure = {"kind": "series", "x": axis, "panels": panels, "markers": True}
    tables = [_parts_table(sweep, runs.score), _modes_table(sweep, runs.score)]
    found = _compared(sweep, "batch", runs.score)
    words = {"harmful": "shown", "better": "contradicted", "equivalent": "contradicted"}
    # A loss has no chance level that would say whether a net trains.
    can_tell = not runs.score.higher_is_better or _any_trains(sweep)
    status = words.get(found.answer, "cannot tell") if found and can_tell else "cannot tell"
    return Answer(
        _sentence(sweep, runs.score),
        figure,
        [one for one in tables if one["rows"]],
        status=status if found else "",
        statement=f"Batch norm loses more than {found.b} when the batch gets small."
        if found
        else "",
        comparisons=[found.to_dict()] if found else [],
    )


def _curves(sweep: _Sweep, score: Score) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the title and the curves of every panel."""
    for mode in _modes(score):
        title = f"error, {mode}, %" if score.higher_is_better else "held-out loss"
        yield title, {name: _as_curve(groups, mode, score) for name, groups in sweep.runs.items()}


def _modes(score: Score) -> list[str]:
    return list(MODES) if score.higher_is_better else [EVALUATION]


def _spread(records: Sequence[Record], mode: str, score: Score) -> Spread:
    if score.higher_is_better:
        return spread([_error(record, mode) for record in records], higher_is_better=False)
    return score.spread(records)


def _as_curve(groups: Groups, mode: str, score: Score) -> dict[str, Any]:
    spreads = [_spread(records, mode, score) for records in groups.values()]
    columns = {key: [seeds[key] for seeds in spreads] for key in ("median", "low", "high")}
    return {"x": list(groups), **columns}


_TOO_LITTLE = (
    "no normalizer trains, with or without batch statistics, so the runs are too short to show the "
    "effect of the batch size"
)


def _sentence(sweep: _Sweep, score: Score) -> str:
    """Say how the error changes from the reference to the smallest batch size, and why."""
    found = {name: _parts_at(groups, sweep) for name, groups in sweep.runs.items()}
    texts = [
        f"{name} {_parts_text(known, sweep.runs[name][sweep.smallest], _beyond(sweep, name))}"
        for name, known in found.items()
        if known
    ]
    if not _any_trains(sweep):
        texts.append(_TOO_LITTLE)
    span = f"From batch size {sweep.reference} to {sweep.smallest} at equal {sweep.budget}"
    if score.higher_is_better:
        return f"{span} the error changes, in points: {'; '.join(texts)}."
    compared = [_compared(sweep, name, score) for name in sweep.runs]
    return f"{span}: {join([_loss_text(one) for one in compared if one])}."


def _any_trains(sweep: _Sweep) -> bool:
    """Whether any normalizer trains at the smallest batch size; True without batch-free ones."""
    found = {name: _parts_at(groups, sweep) for name, groups in sweep.runs.items()}
    beside = any(uses_no_batch(name) for name in found)
    return not beside or any(known and known.trains for known in found.values())


def _parts_at(groups: Groups, sweep: _Sweep, size: int | None = None) -> Parts | None:
    here, reference = groups.get(size or sweep.smallest), groups.get(sweep.reference)
    return parts(here, reference) if here and reference else None


def _parts_text(found: Parts, here: Sequence[Record], beyond: Comparison | None) -> str:
    if found.rise is None:
        lost = sum(record["status"] != "ok" for record in here)
        return f"diverged in {lost} of {plural(len(here), 'run')}"
    rise = interval_text(found.rise, sign=True)
    if not found.trains:
        return f"{rise}: it does not train at all, since the error is high in every mode"
    causes = [*_lagging_text(found), *_noise_text(found, beyond)]
    return f"{rise}: {join(causes)}" if causes else rise


def _lagging_text(found: Parts) -> list[str]:
    if found.lagging is None or found.lagging.low is None or found.lagging.high is None:
        return []
    text = interval_text(found.lagging, sign=True)
    if found.lagging.low > 0:
        return [f"{text} from running statistics that lag"]
    return [f"{text} because running statistics lag less"] if found.lagging.high < 0 else []


def _noise_text(found: Parts, beyond: Comparison | None) -> list[str]:
    """Return the rise with recomputed statistics, and whether it is noise of the batches."""
    if beyond is None:
        return []
    cause = {
        "harmful": f"more than {beyond.b}, so there is noise in training",
        "better": f"less than {beyond.b}",
        "equivalent": f"as much as {beyond.b}, so there is no noise in training",
        "cannot tell": f"with no detectable difference from {beyond.b}",
    }[beyond.answer]
    return [f"{interval_text(found.remaining, sign=True)} with recomputed statistics, {cause}"]


def _beyond(sweep: _Sweep, name: str) -> Comparison | None:
    """Compare the rise with recomputed statistics to that of a normalizer that uses no batch."""
    return _compared(sweep, name, ACCURACY)


def _compared(sweep: _Sweep, name: str, score: Score) -> Comparison | None:
    steady = next((label for label in sweep.runs if uses_no_batch(label)), None)
    if steady is None or name not in sweep.runs or uses_no_batch(name):
        return None
    samples = [_losses(sweep, label, score) for label in (steady, name)]
    if not all(one.values for one in samples):
        return None
    quantity = f"loss by small batches, {score.unit}"
    margin = score.equal_within
    [found] = against_control(samples[0], samples[1:], quantity=quantity, margin=margin)
    return in_shown_unit(found, score)


def _losses(sweep: _Sweep, name: str, score: Score) -> Sample:
    """Return each seed's change from the reference to the smallest batch; larger is better."""
    groups = sweep.runs[name]
    pairs = list(_paired(groups.get(sweep.smallest, []), groups.get(sweep.reference, [])))
    if score.higher_is_better:
        rises = _minus(
            [_error(here, RECOMPUTED) for here, _ in pairs],
            [_error(there, RECOMPUTED) for _, there in pairs],
        )
    else:
        rises = [_rise(score.value(here), score.value(there), score) for here, there in pairs]
    seeds = [here["cell"]["seed"] for here, _ in pairs]
    return Sample(name, [None if rise is None else -rise for rise in rises], seeds=seeds)


def _loss_text(found: Comparison) -> str:
    words = {
        "harmful": "loses more than",
        "better": "loses less than",
        "equivalent": "loses as much as",
        "cannot tell": "shows no detectable difference from",
    }[found.answer]
    return f"{found.a} {words} {found.b} ({comparison_text(found, LOSS)})"


def _parts_table(sweep: _Sweep, score: Score) -> Table:
    columns = ["normalizer", "batch size", "trains"]
    for words in ("rise of error", "from lagging statistics", "left with recomputed statistics"):
        columns += [f"{words}: {key}" for key in ("mean", "low", "high")]
    rows: list[list[Any]] = []
    for name, groups in sweep.runs.items() if score.higher_is_better else ():
        for size in groups:
            if found := _parts_at(groups, sweep, size):
                numbers = [end for part in found[:3] for end in cells(part)]
                rows.append([name, size, "yes" if found.trains else "no", *numbers])
    return table("Parts of the rise, points", columns, rows)


def _modes_table(sweep: _Sweep, score: Score) -> Table:
    columns = ["normalizer", "batch size", "learning rate", "steps", "seeds", "diverged"]
    for mode in _modes(score):
        columns += [f"{mode}: {key}" for key in ("median", "low", "high")]
    rows = []
    for name, groups in sweep.runs.items():
        for size, records in groups.items():
            spreads = [_spread(records, mode, score) for mode in _modes(score)]
            numbers = [number for s in spreads for number in ends(s)]
            cell, seeds = records[0]["cell"], spreads[0]
            counts = [cell["lr"], cell["steps"], seeds["n"], seeds["diverged"]]
            rows.append([name, size, *counts, *numbers])
    return table("Error, %" if score.higher_is_better else "Held-out loss", columns, rows)


def _question(claim: str, budget: str, effect: str) -> Question:
    return Question(
        claim,
        f"What do small batches do, at equal {budget}?",
        "Held-out error at each batch size; the learning rate is proportional to the batch size "
        f"(after Wu & He 2018, 1803.08494). At equal {budget}, small batches {effect}. Three ways "
        "to evaluate separate three causes. The part of the rise that disappears with recomputed "
        "statistics comes from running statistics that lag. If the rest is larger than the rise of "
        "a normalizer without batch statistics, it comes from noise in training. If the error is "
        "high in all three, the net does not train at all: in a fully connected net at batch size "
        "2, each statistic is computed from two values, which is a different problem than noise. A "
        "convolution also averages over positions.",
        lambda runs: _batch(runs, budget),
    )


QUESTIONS = (
    _question("batch", "epochs", "take more steps"),
    _question("batch-steps", "steps", "see fewer samples"),
)
