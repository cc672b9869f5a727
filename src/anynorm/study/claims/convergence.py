"""How fast the training loss falls: the steps until it stays below a common level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anynorm.study.chosen import at_own_rate
from anynorm.study.claims.curves import Curve, merge, panel, series_table
from anynorm.study.claims.judge import Judgement, Statement, judge
from anynorm.study.claims.question import Answer, Question, Table, table
from anynorm.study.inference import Comparison
from anynorm.study.losses import WINDOW, Smoothed, smoothed
from anynorm.study.selection import Runs
from anynorm.study.spread import Record, by_seed
from anynorm.study.wording import number

__all__ = ["QUESTIONS", "convergence_ratios", "loss_level"]

ABOVE = 1.1  # times the largest final loss
Groups = Mapping[str, Sequence[Record]]


def convergence_ratios(runs: Runs) -> dict[str, Comparison]:
    """Compare the steps to the common loss with those of none, each at its own learning rate.

    Differences are log ratios; larger is faster. The result is empty unless none and another
    normalizer were run.
    """
    groups = at_own_rate(runs)
    level = loss_level(groups)
    if level is None:
        return {}
    return {found.a: found for found in _judged(groups, level, OWN).comparisons}


def loss_level(groups: Groups) -> float | None:
    """Return L*: 1.1 times the largest final smoothed loss among the runs that trained.

    A run has trained if it ends at half of its first loss or below. It counts if most runs of its
    normalizer have trained. If no run counts, the result is None.
    """
    finals = [loss for records in groups.values() for loss in _final_losses(records)]
    return ABOVE * max(finals) if finals else None


def _final_losses(records: Sequence[Record]) -> list[float]:
    curves = [smoothed(record) for record in records if record["status"] == "ok"]
    trained = [curve.losses[-1] for curve in curves if curve is not None and curve.halved]
    return trained if 2 * len(trained) > len(records) else []


SAME = Statement(
    "{name} trains faster at the same learning rate.",
    "steps to the common training loss",
    ("fewer", "more"),
    lost="not reached",
)
OWN = Statement(
    "{name} trains faster, each at its own learning rate.",
    "steps to the common training loss",
    ("fewer", "more"),
    lost="not reached",
)


def _judged(groups: Groups, level: float, statement: Statement) -> Judgement:
    def steps(record: Record) -> float | None:
        curve = smoothed(record) if record["status"] == "ok" else None
        return None if curve is None else curve.steps_below(level)

    rates = {name: records[0]["cell"]["lr"] for name, records in groups.items()}
    values = {name: by_seed(records, steps) for name, records in groups.items()}
    return judge(values, statement, more_columns={"learning rate": rates})


def _convergence(runs: Runs, own: bool) -> Answer | str:
    groups = at_own_rate(runs) if own else runs.at_base()
    level = loss_level(groups)
    if level is None:
        return (
            "with no normalizer did most runs halve their training loss. More --steps or other "
            "learning rates (--lrs) may help."
        )
    judged = _judged(groups, level, OWN if own else SAME)
    panels = [panel("smoothed training loss", merge(groups, _curve), log=True)]
    panels[0]["line"] = {"at": level, "words": "L*"}
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels}
    answer = judged.answer(figure, [_level_table(level), series_table("step", panels)])
    return answer._replace(sentence=f"The common loss L* is {number(level)}. {answer.sentence}")


def _level_table(level: float) -> Table:
    return table("Common training loss", ["L*"], [[level]])


def _curve(record: Record) -> Curve | None:
    found: Smoothed | None = smoothed(record)
    return None if found is None else Curve(found.steps, found.losses)


DEFINITION = (
    f"The smoothed training loss is the mean of the last {WINDOW} recorded mini-batch losses. L* "
    "is 1.1 times the largest final smoothed loss among the normalizers that trained. A "
    "normalizer has trained if most of its runs end at half of their first loss or below. The "
    "comparison counts the steps until the smoothed loss stays below L*. A run that does not "
    "reach L* counts as slower than any other."
)


def _question(name: str, title: str, first: str, own: bool) -> Question:
    def answer(runs: Runs) -> Answer | str:
        return _convergence(runs, own)

    return Question(name, title, f"{first} {DEFINITION}", answer)


QUESTIONS: tuple[Question, ...] = (
    _question(
        "convergence",
        "Does training get faster at the same learning rate?",
        "All normalizers train with the base setting.",
        own=False,
    ),
    _question(
        "convergence-own",
        "Does training get faster, each at its own learning rate?",
        "Each normalizer trains at the learning rate of its lowest training loss.",
        own=True,
    ),
)
