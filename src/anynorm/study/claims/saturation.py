"""Saturated and dead units, at the study's own initial weights and at others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from anynorm.study.claims.curves import Curve, Pick, merge, panel, series_table
from anynorm.study.claims.intervals import Interval, cells, interval, interval_text
from anynorm.study.claims.judge import Judgement, Statement, judge
from anynorm.study.claims.question import Answer, Question, Table, table
from anynorm.study.experiments import PAIR
from anynorm.study.selection import Runs
from anynorm.study.spread import Record, Score, finite

__all__ = ["QUESTIONS"]

WORDS = {"saturated": "Saturated values", "dead": "Dead units"}
TITLES = {"saturated": "saturated, % of values", "dead": "dead, % of units"}
FEWER = {
    key: Statement(
        f"{{name}} keeps units from {doing}.",
        f"{WORDS[key].lower()} at the last measurement",
        ("fewer", "more"),
        unit="points",
        percent=True,
        margin=1.0,
    )
    for key, doing in (("saturated", "saturating"), ("dead", "dying"))
}
Groups = Mapping[str, Sequence[Record]]
LOST = "not measured in some runs"


class _Shares(NamedTuple):
    """The share of one normalizer at the first and the last measurement, and its score."""

    first: Interval | None
    last: Interval | None
    score: Interval | None


def _share(key: str) -> Pick:
    """Return a function that picks the mean share over the layers that have one, in per cent."""

    def pick(record: Record) -> Curve | None:
        units = (record.get("probes") or {}).get("units") or {}
        if not units.get(key) or not units.get("step"):
            return None
        # A record that was cut short may have columns of different lengths.
        count = min(len(units["step"]), len(units[key]))
        shares = [_mean_percent(layers) for layers in units[key][:count]]
        return Curve(units["step"][:count], shares)

    return pick


def _mean_percent(layers: Sequence[float | None]) -> float | None:
    known = [value for value in map(finite, layers) if value is not None]
    return 100 * sum(known) / len(known) if known else None


def _saturation(runs: Runs) -> Answer | str:
    settings = _settings(runs)
    for key in WORDS:
        measured = {init: _with_share(groups, key) for init, groups in settings.items()}
        measured = {init: groups for init, groups in measured.items() if groups}
        if measured:
            return _answer(measured, key, runs)
    return (
        "no probed layer has an activation that saturates or dies, or no run was probed. Probes "
        "are on by default: leave out --no-probes."
    )


def _settings(runs: Runs) -> dict[float, Groups]:
    """Return the probed runs for each factor of the initial weights, the base's first."""
    inits = {record["cell"]["init"] for record in runs.records if record.get("probes")}
    base = runs.base_value("init")
    ordered = sorted(inits, key=lambda init: (init != base, init))
    found = {init: _probed(runs.at(init=init)) for init in ordered}
    return {init: groups for init, groups in found.items() if groups}


def _probed(groups: Groups) -> Groups:
    found = {name: [r for r in records if r.get("probes")] for name, records in groups.items()}
    return {name: records for name, records in found.items() if records}


def _with_share(groups: Groups, key: str) -> Groups:
    """Return the normalizers for which at least one layer has a value of this share."""
    pick = _share(key)
    return {
        name: records
        for name, records in groups.items()
        if any(value is not None for r in records for value in (pick(r) or Curve((), ())).values)
    }


def _answer(measured: Mapping[float, Groups], key: str, runs: Runs) -> Answer:
    panels = [
        panel(f"{TITLES[key]}{_suffix(init, measured)}", merge(groups, _share(key)))
        for init, groups in measured.items()
    ]
    shares = {
        init: {name: _shares(records, key, runs.score) for name, records in groups.items()}
        for init, groups in measured.items()
    }
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels}
    sentence = " ".join(
        _sentence(f"{WORDS[key]}{_suffix(init, measured)}", found, runs.score)
        for init, found in shares.items()
    )
    judged = _judged([*measured.values()][-1], key)
    tables = [_table(shares, runs.score), judged.table, series_table("step", panels)]
    return judged.answer(figure)._replace(sentence=sentence, tables=tables)


def _judged(groups: Groups, key: str) -> Judgement:
    """Judge the shares at the last measurement, with the last of the initial weights."""
    picks = {name: [(r, _share(key)(r)) for r in records] for name, records in groups.items()}
    values = {
        name: {
            record["cell"]["seed"]: curve.values[-1] if record["status"] == "ok" else None
            for record, curve in pairs
            if curve is not None
        }
        for name, pairs in picks.items()
    }
    return judge(values, FEWER[key])


def _suffix(init: float, measured: Mapping[float, Any]) -> str:
    return f", initial weights × {init:g}" if len(measured) > 1 else ""


def _shares(records: Sequence[Record], key: str, score: Score) -> _Shares:
    curves = [curve.values for record in records if (curve := _share(key)(record))]
    first, last = ([curve[place] for curve in curves if curve] for place in (0, -1))
    scores = [score.outcome(score.value(record)) for record in records]
    accuracy = interval(scores)
    if score.higher_is_better:
        accuracy = _percent(accuracy)
    return _Shares(_percent(interval(first)), _percent(interval(last)), accuracy)


def _percent(found: Interval | None) -> Interval | None:
    """Return an interval of percentages, cut to the possible range of 0 to 100."""
    if found is None:
        return None
    return Interval(*(None if end is None else min(100.0, max(0.0, end)) for end in found))  # type: ignore[arg-type]


def _sentence(words: str, found: Mapping[str, _Shares], score: Score) -> str:
    """Name the shares of none and batch, which are compared; the table has all normalizers."""
    names = PAIR if set(PAIR) <= found.keys() else tuple(found)
    texts = [f"{name} {_shares_text(found[name], score)}" for name in names]
    return f"{words}, from the first to the last measurement: {'; '.join(texts)}."


def _shares_text(found: _Shares, score: Score) -> str:
    ends = (found.first, found.last)
    moved = " to ".join(interval_text(end, unit="%", lost=LOST) for end in ends)
    if not score.higher_is_better:
        return moved
    return f"{moved}, accuracy {interval_text(found.score, unit='%')}"


def _table(shares: Mapping[float, Mapping[str, _Shares]], score: Score) -> Table:
    columns = ["normalizer", "initial weights ×"]
    last = "accuracy, %" if score.higher_is_better else "−100 × the logarithm of the loss"
    for words in ("first, %", "last, %", last):
        columns += [f"{words}: {end}" for end in ("mean", "low", "high")]
    rows = [
        [name, init, *cells(found.first, LOST), *cells(found.last, LOST), *cells(found.score)]
        for init, groups in shares.items()
        for name, found in groups.items()
    ]
    return table("Shares and scores", columns, rows)


QUESTIONS = (
    Question(
        "saturation",
        "Do fewer units saturate or die?",
        "The share of values with |z| > 4 before a sigmoid, or > 2 before a tanh; the share of "
        "ReLU units that are zero on the whole probe batch. Shares are means over layers and "
        "seeds; each end of an interval holds with 95% confidence. A study may probe other "
        "initial weights as well, since large ones saturate a net from the start.",
        _saturation,
    ),
)
