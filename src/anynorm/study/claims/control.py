"""The noisy control: does batch norm help because it keeps distributions stable?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from anynorm.study.claims.curves import early, probe
from anynorm.study.claims.intervals import number_cells
from anynorm.study.claims.outcome import row, score_panel, score_table
from anynorm.study.claims.question import Answer, Question, Table, table
from anynorm.study.inference import Comparison
from anynorm.study.samples import compare_scores
from anynorm.study.selection import FACTORS, Runs, Setting, by_label, setting
from anynorm.study.spread import Record, Score, Spread
from anynorm.study.wording import comparison_text, join, number, score_text

__all__ = ["QUESTIONS", "Control", "control_of"]

NOISE = " + noise"
Arms = Mapping[str, Sequence[Record]]


class Control(NamedTuple):
    """The arms of the control and their comparisons.

    `benefit` compares batch norm with the model without it: the noise can only take a benefit away
    if batch norm is better. `others` compares every other arm with the noisy batch norm.
    """

    lr: float
    batch: str
    arms: Arms
    benefit: Comparison | None
    others: Sequence[Comparison]


def control_of(runs: Runs) -> Control | None:
    """Return the control at the learning rate at which it was run; None if it was not run."""
    where = _place(runs)
    if where is None:
        return None
    arms = by_label(r for r in (*runs.records, *_noisy(runs)) if setting(r) == where)
    batch = next(name for name in _noisy_labels(runs, where)).removesuffix(NOISE)
    names = ("none", f"none{NOISE}", batch, batch + NOISE)
    arms = {name: arms[name] for name in names if name in arms}
    benefit, others = _compare(arms, batch, runs.score)
    return Control(where[FACTORS.index("lr")], batch, arms, benefit, others)


def _noisy(runs: Runs) -> list[Record]:
    return [record for record in runs.controls if record["cell"].get("noise")]


def _noisy_labels(runs: Runs, where: Setting) -> list[str]:
    found = by_label(record for record in _noisy(runs) if setting(record) == where)
    return [name for name in found if name != f"none{NOISE}"]


def _place(runs: Runs) -> Setting | None:
    """Return the setting of the control with the most arms, at the largest learning rate."""
    places = {where: _noisy_labels(runs, where) for where in map(setting, _noisy(runs))}
    usable = [where for where, labels in places.items() if labels]
    lr = FACTORS.index("lr")
    return max(usable, key=lambda where: (len(places[where]), where[lr]), default=None)


def _compare(
    arms: Arms, batch: str, score: Score
) -> tuple[Comparison | None, Sequence[Comparison]]:
    others = compare_scores(arms, batch + NOISE, score)
    if not {"none", batch} <= arms.keys():
        return None, others
    [benefit] = compare_scores({name: arms[name] for name in ("none", batch)}, "none", score)
    return benefit, others


def _control(runs: Runs) -> Answer | str:
    found = control_of(runs)
    if found is None:
        return "the noisy control was not run. --noise with none and batch would measure it."
    shift = early(found.arms, probe("units", "wasserstein"))
    scores = {name: runs.score.spread(records) for name, records in found.arms.items()}
    panels = [{**score_panel(runs.score, []), "rows": [row(*item) for item in scores.items()]}]
    if shift:
        title = "distribution shift, first 100 steps"
        panels.append({"title": title, "log": True, "rows": [row(*item) for item in shift.items()]})
    caption = f"Control at learning rate {found.lr:g}"
    tables = [score_table(runs.score, found.arms, caption), _comparison_table(found)]
    sentence = " ".join((_judgement(found, runs.score), _arms_text(found, scores, shift, runs)))
    return Answer(
        sentence,
        {"kind": "dots", "panels": panels},
        tables,
        status=_status(found),
        statement="The benefit of batch norm survives noise that shifts its outputs.",
        comparisons=[comparison.to_dict() for comparison in _all(found)],
    )


def _all(found: Control) -> list[Comparison]:
    return [*([found.benefit] if found.benefit else []), *found.others]


def _status(found: Control) -> str:
    if found.benefit is None or found.benefit.answer != "better":
        return "cannot tell"
    plain = next(comparison for comparison in found.others if comparison.a == "none")
    words = {"harmful": "shown", "better": "contradicted", "equivalent": "contradicted"}
    return words.get(plain.answer, "cannot tell")


def _comparison_table(found: Control) -> Table:
    columns = ["arm", "compared with", "answer", "difference", "low", "high", "test"]
    rows = [[c.a, c.b, c.answer, *number_cells(c), c.test] for c in _all(found)]
    return table("Comparisons", columns, rows)


def _judgement(found: Control, score: Score) -> str:
    """Say whether the benefit survives the noise, or why the control cannot tell."""
    if found.benefit is None:
        return "The control cannot tell: no model without normalization was run."
    if found.benefit.answer != "better":
        return _cannot_tell(found, score)
    answers = {comparison.a: comparison for comparison in found.others}
    noisy, plain = found.batch + NOISE, answers["none"]
    if plain.answer == "harmful":
        beside = _beside(answers[found.batch], score)
        return (
            f"The benefit survives the noise: {noisy} is better than none{_by(plain, score)}, "
            f"and {beside}. Stable distributions are not the reason why {found.batch} helps here."
        )
    if plain.answer in ("better", "equivalent"):
        return (
            f"The noise takes the benefit away: {found.batch} is better than none, {noisy} is not."
        )
    return (
        f"The control cannot tell yet: {found.batch} is better than none, but the seeds do not "
        f"show whether {noisy} is{_by(plain, score)}."
    )


def _cannot_tell(found: Control, score: Score) -> str:
    assert found.benefit is not None
    difference = comparison_text(found.benefit, score)
    if found.benefit.answer == "cannot tell":
        return (
            f"The control cannot tell: at learning rate {found.lr:g} these seeds do not show that "
            f"{found.batch} is better than none ({difference}). More seeds may show it."
        )
    words = {"equivalent": "as good as none", "harmful": "worse than none"}[found.benefit.answer]
    return (
        f"The control cannot tell: at learning rate {found.lr:g} {found.batch} is {words} "
        f"({difference}), so there is no benefit that noise could take away. Use a learning rate "
        "at which training without normalization fails."
    )


def _by(other: Comparison, score: Score) -> str:
    """Return by how much the noisy arm is better than the other one."""
    if other.difference is None or other.low is None or other.high is None:
        return ""
    turned = replace(
        other,
        difference=score.opposite(other.difference),
        low=score.opposite(other.high),
        high=score.opposite(other.low),
    )
    return f" ({comparison_text(turned, score)})"


def _beside(batch: Comparison, score: Score) -> str:
    words = {
        "better": f"{batch.a} without noise is better still",
        "harmful": f"{batch.a} without noise is even worse",
        "equivalent": f"{batch.a} without noise is as good",
        "cannot tell": f"{batch.a} without noise shows no detectable difference from it",
    }[batch.answer]
    return f"{words} ({comparison_text(batch, score)})"


def _arms_text(
    found: Control, scores: Mapping[str, Spread], shift: Mapping[str, Spread], runs: Runs
) -> str:
    texts = []
    for name, seeds in scores.items():
        moved = shift[name]["median"] if name in shift else None
        words = "" if moved is None else f" with a shift of {number(moved)}"
        texts.append(f"{name} {score_text(runs.score, seeds)}{words}")
    return f"{runs.score.name.capitalize()} at learning rate {found.lr:g}: {join(texts)}."


QUESTIONS = (
    Question(
        "control",
        "Does the benefit survive unstable distributions?",
        "The control adds random shifts and scales, new ones at each step, after every normalizer "
        "(Santurkar et al. 2018, 1805.11604). If stable distributions were the reason why "
        "normalization helps, the noise would take the benefit away. For batch norm to have a "
        "benefit, all four arms train at a learning rate at which training without normalization "
        "often fails. Distribution shift is the Wasserstein-1 distance between a unit's outputs on "
        "a fixed batch at two measurements, in standard deviations.",
        _control,
    ),
)
