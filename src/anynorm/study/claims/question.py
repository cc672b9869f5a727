"""A question about a study, and what is handed to the report as its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from anynorm.study.selection import Runs

__all__ = ["Answer", "Question", "Table", "ask", "ends", "table"]

Table = dict[str, Any]


class Answer(NamedTuple):
    """One sentence computed from the runs, the figure it describes, and the numbers behind it.

    `statement` is what is judged, in one short sentence, and `status` the judgement: "shown",
    "contradicted" or "cannot tell". Both are empty where a claim only describes. `comparisons`
    are the tests behind it.
    """

    sentence: str
    figure: Mapping[str, Any]
    tables: Sequence[Table]
    status: str = ""
    statement: str = ""
    comparisons: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Question:
    """What is measured and how; `answer` returns a string with the reason where it was not."""

    id: str
    title: str
    definition: str
    answer: Callable[[Runs], Answer | str]


def ask(question: Question, runs: Runs) -> dict[str, Any]:
    """Return the claim that answers `question`: ``missing`` says why there is no answer."""
    claim = {"id": question.id, "title": question.title, "definition": question.definition}
    answer = question.answer(runs)
    if isinstance(answer, str):
        return {**claim, "missing": answer}
    found = {**answer._asdict(), "comparisons": list(answer.comparisons)}
    return {**claim, "missing": None, **found}


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Return a table whose cells are names, numbers, or words where there is no number."""
    filled = [["not measured" if value is None else value for value in row] for row in rows]
    return {"caption": caption, "columns": list(columns), "rows": filled}


def ends(seeds: Mapping[str, Any] | None, lost: str = "diverged") -> list[float | str]:
    """Return median, lowest and highest of a spread as the cells of a table.

    `lost` is what happened to a run without a value.

    >>> ends({"n": 2, "median": 0.5, "low": 0.4, "high": None}), ends(None)[0]
    ([0.5, 0.4, 'diverged'], 'not measured')
    """
    if seeds is None or not seeds.get("n", 1):
        return ["not measured"] * 3
    found = (seeds[key] for key in ("median", "low", "high"))
    return [lost if value is None else value for value in found]
