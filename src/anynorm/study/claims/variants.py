"""Variants of a normalizer: other norms as σ, and its place around the activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anynorm.study.chosen import at_own_rate
from anynorm.study.claims.judge import NAMED, NONE, Judgement, judge, subject
from anynorm.study.claims.outcome import (
    judged_scores,
    row,
    score_panel,
    score_statement,
    score_table,
)
from anynorm.study.claims.question import Answer, Question, table
from anynorm.study.inference import LEVEL
from anynorm.study.selection import Runs, by_label, sweep
from anynorm.study.spread import Record, Score
from anynorm.study.wording import join, plural

__all__ = ["QUESTIONS"]

PLACES = ("before", "after")
OTHER_NORMS = {"l1-batch": "L1", "linf-batch": "L∞"}

Groups = Mapping[tuple[str, str], Sequence[Record]]


def _other_norms(runs: Runs) -> Answer | str:
    chosen = at_own_rate(runs)
    shown = {name: chosen[name] for name in ("batch", *OTHER_NORMS) if name in chosen}
    if "batch" not in shown or len(shown) == 1:
        return (
            "the study has no L1 or L∞ batch norm beside batch norm. "
            "--norms batch l1-batch linf-batch would measure it."
        )
    names = join([words for name, words in OTHER_NORMS.items() if name in shown])
    verb = "train" if len(shown) > 2 else "trains"
    statement = score_statement(
        runs.score,
        f"{names} batch norm {verb} as well as batch norm.",
        shown_by=("better", "equivalent"),
        contradicted_by=("harmful",),
    )
    judged = judge(judged_scores(runs.score, shown), statement, control="batch")
    rows = [row(name, runs.score.spread(records)) for name, records in shown.items()]
    figure = {"kind": "dots", "panels": [score_panel(runs.score, rows)]}
    statuses = [statement.status(found.answer) for found in judged.comparisons]
    return judged.answer(figure)._replace(status=_of_all(statuses))


def _of_all(statuses: Sequence[str]) -> str:
    """Return the status of a statement about several normalizers."""
    if "contradicted" in statuses:
        return "contradicted"
    return "shown" if set(statuses) == {"shown"} else "cannot tell"


def _placement(runs: Runs) -> Answer | str:
    records = sweep(runs, "placement")
    if not records:
        return "only one placement was run. --placements before after would measure it."
    groups = {
        (name, place): group
        for name, both in by_label(records).items()
        for place in PLACES
        if (group := [r for r in both if r["cell"]["placement"] == place])
    }
    rows = [row(n, runs.score.spread(group), place) for (n, place), group in groups.items()]
    figure = {"kind": "dots", "panels": [{**score_panel(runs.score, rows), "rows": rows}]}
    named = {f"{name}, {place}": group for (name, place), group in groups.items()}
    scores = score_table(runs.score, named, "Before and after the activation")
    judged = _before_against_after(runs.score, groups)
    if not judged:
        sentence = "No normalizer was run on both sides of the activation."
        return Answer(sentence, figure, [scores])
    return _placement_answer(judged, figure, scores)


def _before_against_after(score: Score, groups: Groups) -> list[Judgement]:
    """Compare each normalizer before the activation with itself after it, batch norm first."""
    names = [name for name, place in groups if place == "after" and (name, "before") in groups]
    names = sorted((n for n in names if n != NONE), key=lambda name: name != "batch")
    return [
        judge(
            judged_scores(score, {f"{name}, {place}": groups[name, place] for place in PLACES}),
            score_statement(score, f"{subject(name)} works better before the activation."),
            control=f"{name}, after",
            # The error is that of all these comparisons together.
            level=LEVEL / len(names),
        )
        for name in names
    ]


def _placement_answer(
    judged: Sequence[Judgement], figure: Mapping[str, object], scores: dict[str, object]
) -> Answer:
    found = [comparison for one in judged for comparison in one.comparisons]
    texts = [
        f"{c.a.removesuffix(', before')} {one.judged.effect_text(c)}"
        for one in judged
        for c in one.comparisons
    ]
    rows = [cells for one in judged for cells in one.table["rows"]]
    compared = table("Before beside after", judged[0].table["columns"], rows)
    more = len(texts) - NAMED
    rest = f"; the table has {plural(more, 'other')}" if more > 0 else ""
    return Answer(
        f"Before instead of after the activation: {'; '.join(texts[:NAMED])}{rest}.",
        figure,
        [compared, scores],
        status=judged[0].status,
        statement=judged[0].statement,
        comparisons=[comparison.to_dict() for comparison in found],
    )


QUESTIONS = (
    Question(
        "other-norms",
        "L1 and L∞ in place of the deviation",
        "Batch norm divides by the standard deviation, L1 batch norm by the mean absolute "
        "deviation, L∞ batch norm by the largest (Santurkar et al. 2018, 1805.11604). Each runs at "
        "its own learning rate, which the training loss chooses.",
        _other_norms,
    ),
    Question(
        "placement",
        "Before or after the activation",
        "The normalizer in front of the activation function or behind it, all else equal.",
        _placement,
    ),
)
