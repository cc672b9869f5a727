"""Variants of a normalizer: other norms as σ, and its place around the activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anynorm.study.chosen import at_own_rate
from anynorm.study.claims.judge import NAMED, NONE, Judgement, subject
from anynorm.study.claims.outcome import (
    judge_scores,
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

# Each pair of places with the words for the first and the second.
PLACES = {
    ("before", "after"): ("before the activation", "after it"),
    ("pre", "post"): ("before each sublayer", "after each residual sum"),
}
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
    judged = judge_scores(runs.score, shown, statement, control="batch")
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
        for pair in PLACES
        for place in pair
        if (group := [r for r in both if r["cell"]["placement"] == place])
    }
    present = {place for _, place in groups}
    places = next((pair for pair in PLACES if set(pair) <= present), ("before", "after"))
    rows = [row(n, runs.score.spread(group), place) for (n, place), group in groups.items()]
    figure = {"kind": "dots", "panels": [{**score_panel(runs.score, rows), "rows": rows}]}
    named = {f"{name}, {place}": group for (name, place), group in groups.items()}
    scores = score_table(runs.score, named, "Scores by place")
    judged = _first_against_second(runs.score, groups, places)
    if not judged:
        return Answer("No normalizer was run in two places.", figure, [scores])
    return _placement_answer(judged, figure, scores, places)


def _first_against_second(score: Score, groups: Groups, places: tuple[str, str]) -> list[Judgement]:
    """Compare each normalizer in the first place with itself in the second, batch norm first."""
    first, second = places
    names = [name for name, place in groups if place == second and (name, first) in groups]
    names = sorted((n for n in names if n != NONE), key=lambda name: name != "batch")
    return [
        judge_scores(
            score,
            {f"{name}, {place}": groups[name, place] for place in places},
            score_statement(score, f"{subject(name)} works better {PLACES[places][0]}."),
            control=f"{name}, {second}",
            # The error rate holds for all these comparisons together.
            level=LEVEL / len(names),
        )
        for name in names
    ]


def _placement_answer(
    judged: Sequence[Judgement],
    figure: Mapping[str, object],
    scores: dict[str, object],
    places: tuple[str, str],
) -> Answer:
    first, second = PLACES[places]
    found = [comparison for one in judged for comparison in one.comparisons]
    texts = [
        f"{c.a.removesuffix(f', {places[0]}')} {one.judged.effect_text(c)}"
        for one in judged
        for c in one.comparisons
    ]
    rows = [cells for one in judged for cells in one.table["rows"]]
    compared = table(" beside ".join(places), judged[0].table["columns"], rows)
    more = len(texts) - NAMED
    rest = f"; the table has {plural(more, 'other')}" if more > 0 else ""
    return Answer(
        f"{first.capitalize()} instead of {second}: {'; '.join(texts[:NAMED])}{rest}.",
        figure,
        [compared, scores],
        status=judged[0].status,
        statement=judged[0].statement,
        comparisons=[comparison.to_dict() for comparison in found],
    )


QUESTIONS = (
    Question(
        "other-norms",
        "Do L1 and L∞ norms work as well as the standard deviation?",
        "Batch norm divides by the standard deviation, L1 batch norm by the mean absolute "
        "deviation, L∞ batch norm by the largest (Santurkar et al. 2018, 1805.11604). Each runs at "
        "its own learning rate, which is chosen by training loss.",
        _other_norms,
    ),
    Question(
        "placement",
        "Where should the normalizer be placed?",
        "The normalizer is before or after the activation function; in a residual network, before "
        "each sublayer (pre) or after each residual sum (post). All else is equal.",
        _placement,
    ),
)
