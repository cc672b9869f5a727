"""A question about a study, and its answer for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from anynorm.study.selection import Runs

__all__ = ["Answer", "Question", "Table", "ask", "ends", "table"]

Table = dict[str, Any]


class Answer(NamedTuple):
    """A sentence that is computed from the runs, its figure, and the numbers behind it.

    `statement` is the statement that is judged, in one short sentence; `status` is the judgement:
    "shown", "contradicted" or "cannot tell". Both are empty if a claim only describes.
    `comparisons` are the tests behind the judgement.
    """

    sentence: str
    figure: Mapping[str, Any]
    tables: Sequence[Table]
    status: str = ""
    statement: str = ""
    comparisons: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Question:
    """What is measured and how; `answer` returns the reason as a string if it was not measured."""

    id: str
    title: str
    definition: str
    answer: Callable[[Runs], Answer | str]


def ask(question: Question, runs: Runs) -> dict[str, Any]:
    """Return the claim that answers `question`; if there is no answer, ``missing`` says why."""
    claim = {"id": question.id, "title": question.title, "definition": question.definition}
    answer = question.answer(runs)
    if isinstance(answer, str):
        return {**claim, "missing": answer}
    found = {**answer._asdict(), "comparisons": list(answer.comparisons)}
    return {**claim, "missing": None, **found}


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Return a table; its cells are names, numbers, or the reason why there is no number."""
    filled = [["not measured" if value is None else value for value in row] for row in rows]
    return {"caption": caption, "columns": list(columns), "rows": filled}


def ends(seeds: Mapping[str, Any] | None, lost: str = "diverged") -> list[float | str]:
    """Return median, lowest and highest of a spread as the cells of a table.

    `lost` is the text for a run without a value.

    >>> ends({"n": 2, "median": 0.5, "low": 0.4, "high": None}), ends(None)[0]
    ([0.5, 0.4, 'diverged'], 'not measured')
    """
    if seeds is None or not seeds.get("n", 1):
        return ["not measured"] * 3
    found = (seeds[key] for key in ("median", "low", "high"))
    return [lost if value is None else value for value in found]
