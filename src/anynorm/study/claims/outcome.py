"""The results at the end of training: scores, training loss, diverged runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims.curves import Curve, merge, panel, series_table
from anynorm.study.claims.judge import Judgement, Statement, judge
from anynorm.study.claims.question import Answer, Question, Table, ends, table
from anynorm.study.samples import items_of
from anynorm.study.selection import Runs
from anynorm.study.spread import Record, Score, Spread, by_seed, final, final_value
from anynorm.study.wording import join, plural

__all__ = [
    "QUESTIONS",
    "base_text",
    "judge_scores",
    "row",
    "score_panel",
    "score_statement",
    "score_table",
]

OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam", "adamw": "AdamW"}
PLACEMENTS = {
    "before": "before the activation",
    "after": "after the activation",
    "pre": "before each sublayer",
    "post": "after each residual sum",
}


def row(name: str, seeds: Spread, mark: str = "") -> dict[str, Any]:
    """Return one row of a figure of dots: a normalizer, the mark of the value, and the spread."""
    return {"label": name, "mark": mark, **seeds}


def score_panel(score: Score, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a panel of scores, best first."""
    ordered = sorted(rows, key=lambda r: score.rank_value(r["median"]), reverse=True)
    accuracy = score.higher_is_better
    return {
        "title": score.name,
        "log": not accuracy,
        "percent": accuracy,
        "rows": ordered,
    }


def score_table(score: Score, groups: Mapping[str, Sequence[Record]], caption: str) -> Table:
    """Return scores and losses of every group of runs."""
    losses = ("train_loss", "test_loss")
    columns = ["normalizer", "seeds", "diverged"]
    for name in (score.name, *(["training loss", "held-out loss"])):
        columns += [f"{name}: {key}" for key in ("median", "low", "high")]
    rows = []
    for name, records in groups.items():
        spreads = [score.spread(records), *(final(records, key) for key in losses)]
        cells = [cell for seeds in spreads for cell in ends(seeds)]
        rows.append([name, spreads[0]["n"], spreads[0]["diverged"], *cells])
    return table(caption, columns, rows)


def score_statement(score: Score, text: str, **changes: Any) -> Statement:
    """Return a statement about the score: points of accuracy, or ratios of the loss."""
    if score.higher_is_better:
        return Statement(
            text,
            score.name,
            ("higher", "lower"),
            larger_is_better=True,
            unit="points",
            percent=True,
            margin=score.equal_within,
            **changes,
        )
    margin = score.equal_within / 100  # of logarithms
    return Statement(text, score.name, ("lower", "higher"), margin=margin, **changes)


def judge_scores(
    score: Score, groups: Mapping[str, Sequence[Record]], statement: Statement, **options: Any
) -> Judgement:
    """Judge a statement about the score; `options` are those of `judge`.

    For an accuracy the interval also covers the random choice of the held-out items.
    """
    scale = 100 if score.higher_is_better else 1

    def value(record: Record) -> float | None:
        found = score.value(record)
        return None if found is None else scale * found

    values = {name: by_seed(records, value) for name, records in groups.items()}
    items = {name: items_of(records, score) for name, records in groups.items()}
    return judge(values, statement, items=items if score.higher_is_better else {}, **options)


def _base(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    if not groups:
        return "no run at the base setting has finished. Run the same command again to finish them."
    scores = {name: runs.score.spread(records) for name, records in groups.items()}
    shown = score_panel(runs.score, [row(name, seeds) for name, seeds in scores.items()])
    order = [found["label"] for found in shown["rows"]]
    losses = [row(name, final(groups[name], "train_loss")) for name in order]
    panels = [shown, {"title": "training loss", "log": True, "rows": losses}]
    tables = [score_table(runs.score, groups, base_text(runs))]
    statement = score_statement(
        runs.score, f"{{name}} reaches a better {runs.score.name} with the same settings."
    )
    judged = judge_scores(runs.score, groups, statement)
    answer = judged.answer({"kind": "dots", "panels": panels}, tables)
    return answer._replace(sentence=answer.sentence + _diverged(scores))


def base_text(runs: Runs) -> str:
    """Return the base setting in words."""
    value = runs.base_value
    return (
        f"learning rate {value('lr'):g}, initialization × {value('init'):g}, "
        f"batch size {value('batch')}, normalizer {PLACEMENTS[value('placement')]}, "
        f"{value('steps'):,} steps of {_optimizer_text(runs)}"
    )


def _optimizer_text(runs: Runs) -> str:
    decay, warmup = runs.weight_decay, runs.base_value("warmup")
    added = [f"weight decay {decay:g}"] if decay else []
    added += [f"{warmup:,} steps of warm-up"] if warmup else []
    name = OPTIMIZERS.get(runs.optimizer, runs.optimizer)
    return f"{name} ({', '.join(added)})" if added else name


def _diverged(scores: Mapping[str, Spread]) -> str:
    texts = [
        f"{name} in {seeds['diverged']} of {plural(seeds['n'], 'run')}"
        for name, seeds in scores.items()
        if seeds["diverged"]
    ]
    return f" Diverged: {join(texts)}." if texts else ""


def _training_curve(record: Record) -> Curve | None:
    curve = record.get("curve") or {}
    steps, losses = curve.get("step") or [], curve.get("train_loss") or []
    count = min(len(steps), len(losses))
    return Curve(steps[:count], losses[:count]) if count else None


LOWER_LOSS = Statement(
    "{name} reaches a lower training loss with the same settings.",
    "final training loss",
    ("lower", "higher"),
)


def _training(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    panels = [panel("training loss", merge(groups, _training_curve), log=True)]
    if not panels[0]["series"]:
        return "no run at the base setting recorded its loss; run it again in a new --store."
    losses = {
        name: by_seed(records, lambda record: final_value(record, "train_loss"))
        for name, records in groups.items()
    }
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels}
    return judge(losses, LOWER_LOSS).answer(figure, [series_table("step", panels)])


QUESTIONS = (
    Question(
        "base",
        "What happens with the same settings for all?",
        "Every normalizer is trained with the same settings, data order and seeds. A dot is the "
        "median over seeds, a line their range. A run has diverged if its loss is not finite or "
        "exceeds 1,000; it then counts as the worst result.",
        _base,
    ),
    Question(
        "training",
        "Does the training loss end lower?",
        "Loss of the mini-batches at the base setting: median over seeds and their range.",
        _training,
    ),
)
