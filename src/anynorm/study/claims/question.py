"""A question about a study, and what is handed to the report as its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from anynorm.study.selection import Runs

__all__ = ["Answer", "Question", "ask", "table"]

Table = dict[str, Any]


class Answer(NamedTuple):
    """One sentence computed from the runs, the figure it describes, and the numbers behind it."""

    sentence: str
    figure: Mapping[str, Any]
    tables: Sequence[Table]


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
    return {**claim, "missing": None, **answer._asdict()}


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Return a table whose cells are names, numbers or ``None``."""
    return {"caption": caption, "columns": list(columns), "rows": [list(row) for row in rows]}
