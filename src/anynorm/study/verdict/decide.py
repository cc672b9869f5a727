"""From the runs of one study to its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anynorm.study.chosen import at_own_rate
from anynorm.study.claims.outcome import row, score_panel
from anynorm.study.inference import LEVEL, Comparison, Sample, against_control, among_best
from anynorm.study.ranking import ranking
from anynorm.study.samples import in_shown_unit, samples
from anynorm.study.selection import Runs
from anynorm.study.spread import Score
from anynorm.study.verdict.causes import (
    IDLE,
    LAG,
    Cause,
    causes_in_comparisons,
    causes_in_training,
    recomputed,
)
from anynorm.study.verdict.recommend import NONE, Choice, choose
from anynorm.study.verdict.sentences import recommendation, sentences

__all__ = ["compared", "decide"]

_HEADLINES = {
    "use": "Use {name}",
    "prefer": "Use {name}",
    "no benefit": "No benefit in {score}",
    "undecided": "Cannot tell yet",
}


def decide(runs: Runs, *, looks: int = 1) -> dict[str, Any]:
    """Return the verdict on one study, as plain values.

    Args:
        runs: the runs of one study. Differences within ± ``runs.score.equal_within`` are called
            equivalent.
        looks: how often the growing study is evaluated; the error rate is divided by it.

    Returns:
        A dict with these keys:

        - ``kind``: ``use`` (a normalizer was shown to be better than none or, if none is not in the
          study, than all others), ``prefer`` (the score does not decide, another measurement does),
          ``no benefit`` (all were shown to be equivalent to none, or harmful) or ``undecided``.
        - ``recommended``: the normalizer to use, ``"none"``, or None.
        - ``recommendation``: what to use, with the reasons and the limits.
        - ``headline``: the recommendation in a few words.
        - ``causes``: dicts with ``name``, ``normalizers``, ``sentence`` and ``action``.
        - ``comparisons``: dicts with ``a``, ``b``, ``quantity``, ``answer``, ``difference``,
          ``low``, ``high``, ``test``, ``seeds`` and ``not_excluded``; see
          `anynorm.study.inference.Comparison`. Each normalizer is compared with none, and with the
          best of the others.
        - ``margin``, ``unit``: the margin of equivalence, and the unit of all differences.
        - ``ranking``, ``figure``, ``differences``, ``sentences``: what the report shows.
    """
    groups = at_own_rate(runs)
    causes = causes_in_training(runs, groups)
    score, scores = runs.score, _scores(runs.score, groups, causes)
    found = samples(groups, scores)
    comparisons = compared(found, score, LEVEL / looks)
    causes += causes_in_comparisons(comparisons, found, score.unit)
    entries = _ranked(ranking(runs, groups, scores, LEVEL / looks), comparisons)
    idle = [name for cause in causes if cause.name == IDLE for name in cause.normalizers]
    choice = Choice("undecided", None)
    if entries:
        choice = choose(entries, comparisons, score, idle=idle)
    comparisons = [in_shown_unit(comparison, score) for comparison in comparisons]
    return {
        "kind": choice.kind,
        "recommended": choice.name,
        "recommendation": recommendation(choice, entries, comparisons, causes, score),
        "headline": _HEADLINES[choice.kind].format(name=choice.name, score=score.name),
        "causes": [cause.to_dict() for cause in causes],
        "comparisons": [comparison.to_dict() for comparison in comparisons],
        "margin": score.equal_within,
        "unit": score.unit,
        "ranking": entries,
        "figure": _figure(score, entries),
        "differences": _differences(comparisons, entries, score),
        "sentences": sentences(entries, comparisons, score, looks),
    }


def compared(found: Mapping[str, Sample], score: Score, level: float) -> list[Comparison]:
    """Compare each normalizer with none, and with the best of the others."""
    others = [sample for name, sample in found.items() if name != NONE]
    settings: dict[str, Any] = {
        "quantity": score.name,
        "margin": score.equal_within,
        "level": level,
    }
    with_none = against_control(found[NONE], others, **settings) if NONE in found else []
    return with_none + among_best(others, **settings)


def _scores(score: Score, names: Iterable[str], causes: Sequence[Cause]) -> dict[str, Score]:
    """Return the score of each normalizer: with recomputed statistics if its running ones lag."""
    late = {name for cause in causes if cause.name == LAG for name in cause.normalizers}
    return {name: recomputed(score) if name in late else score for name in names}


def _ranked(
    entries: Sequence[dict[str, Any]], comparisons: Sequence[Comparison]
) -> list[dict[str, Any]]:
    """Give every entry its rank: 1 for all entries that were not shown to be worse than another."""
    worse = {c.a for c in comparisons if c.answer == "harmful"}
    if any(c.b == NONE and c.answer == "better" for c in comparisons):
        worse.add(NONE)
    ordered = sorted(entries, key=lambda entry: entry["label"] in worse)
    return [
        {**entry, "rank": place if entry["label"] in worse else 1}
        for place, entry in enumerate(ordered, start=1)
    ]


def _figure(score: Score, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = [row(entry["label"], entry["score"]) for entry in entries]
    return {"kind": "dots", "panels": [{**score_panel(score, rows), "rows": rows}]}


def _differences(
    comparisons: Sequence[Comparison],
    entries: Sequence[dict[str, Any]],
    score: Score,
) -> dict[str, Any]:
    """Return the comparisons as a figure of intervals, one panel for each reference."""
    places = {entry["label"]: place for place, entry in enumerate(entries)}
    panels = []
    for other in dict.fromkeys(c.b for c in comparisons):
        found = sorted((c for c in comparisons if c.b == other), key=lambda c: places[c.a])
        rows = [
            {"label": c.a, "value": c.difference, "low": c.low, "high": c.high, "answer": c.answer}
            for c in found
        ]
        title = f"{score.name}, difference from {other} in {score.unit}"
        panels.append({"title": title, "margin": score.equal_within, "rows": rows})
    return {"kind": "intervals", "panels": panels}
