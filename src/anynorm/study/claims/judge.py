"""A statement about a quantity, and whether the runs show or contradict it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from anynorm.study.claims.question import Answer, Table, ends, table
from anynorm.study.inference import LEVEL, Comparison, Sample, against_control
from anynorm.study.spread import PerSeed, Spread, finite, spread
from anynorm.study.wording import difference_text, interval_text, join, spread_text

__all__ = ["NAMED", "NONE", "Judgement", "Statement", "judge", "spreads", "subject"]

NONE = "none"
NAMED = 3  # normalizers of one kind that a sentence names; the table has them all
TENTH = math.log(1.1)

Values = Mapping[str, PerSeed]


@dataclass(frozen=True)
class Statement:
    """A sentence about a normalizer, and which answers of the comparison show or contradict it.

    Args:
        text: the sentence; ``{name}`` stands for the normalizer.
        quantity: what is compared, in words.
        better: the words for a better and for a worse value, such as "smaller" and "larger".
        larger_is_better: whether larger values are better.
        unit: the unit of differences. Without a unit the quantity is positive, and ratios are
            compared on a logarithmic scale.
        percent: whether values are in per cent, so that differences are in points.
        lost: the text for a run without a value, which counts as the worst.
        margin: differences up to this one are called equal: in `unit`, or as a log ratio.
        shown_by: the answers that show the statement.
        contradicted_by: the answers that contradict it.
    """

    text: str
    quantity: str
    better: tuple[str, str] = ("smaller", "larger")
    larger_is_better: bool = False
    unit: str = ""
    percent: bool = False
    lost: str = "diverged"
    margin: float = TENTH
    shown_by: tuple[str, ...] = ("better",)
    # The statement is about a difference, so equality up to the margin contradicts it.
    contradicted_by: tuple[str, ...] = ("harmful", "equivalent")

    def sample(self, name: str, values: PerSeed, floor: float) -> Sample:
        """Return `values` as a sample in which larger is better, as logarithms for ratios."""
        sign = 1 if self.larger_is_better else -1
        scaled = [self._scaled(value, floor) for value in values.values()]
        signed = [None if value is None else sign * value for value in scaled]
        return Sample(name, signed, seeds=tuple(values))

    def _scaled(self, value: float | None, floor: float) -> float | None:
        value = finite(value)
        if value is None or self.unit:
            return value
        # Zero has no logarithm: it counts as the smallest value that was seen.
        return math.log(max(value, floor))

    def centre(self, values: PerSeed, floor: float) -> float | None:
        """Return the value that is compared: the mean, or the geometric mean for ratios.

        If some runs have no value, it is the median, or None if the median has no value either.
        """
        middle = self.sample("", values, floor).middle
        if middle is None:
            return None
        signed = middle if self.larger_is_better else -middle
        return signed if self.unit else math.exp(min(signed, 700.0))

    def status(self, answer: str) -> str:
        """Return "shown", "contradicted" or "cannot tell"."""
        if answer in self.shown_by:
            return "shown"
        return "contradicted" if answer in self.contradicted_by else "cannot tell"

    @property
    def effect(self) -> str:
        """The title of the column of differences or ratios."""
        if self.unit:
            return f"normalizer − reference, {self.unit}"
        sides = ("normalizer", "reference")
        return " / ".join(sides if self.larger_is_better else reversed(sides))

    @property
    def equal(self) -> str:
        """The margin in words."""
        if self.unit:
            return f"equal within {self.margin:g} {self.unit}"
        return f"equal within {100 * math.expm1(self.margin):.0f}%"

    def answer_text(self, answer: str) -> str:
        """Return one of the four answers in the words of the quantity."""
        words = {"better": self.better[0], "harmful": self.better[1], "equivalent": self.equal}
        return words.get(answer, answer)

    def effect_text(self, found: Comparison) -> str:
        """Return a difference with its interval, such as ``3.5 times smaller (2.9 to 4.2)``."""
        if found.difference is None:
            return f"no {'difference' if self.unit else 'ratio'} ({self.lack(found)})"
        text = difference_text(found.difference, self.unit, self.better)
        if found.low is None or found.high is None:
            return f"{text} (no interval: {self.lack(found)})"
        return f"{text} ({interval_text(found.low, found.high, self.unit, self.better)})"

    def spread_text(self, seeds: Spread) -> str:
        """Return a centre with its range, in the unit of the quantity."""
        return spread_text(seeds, "%" if self.percent else self.unit, lost=self.lost)

    def lack(self, found: Comparison) -> str:
        """Return why a comparison has no interval."""
        return "one seed" if found.test.startswith("none") else f"{self.lost} in some runs"


class Judgement(NamedTuple):
    """A statement about a normalizer, its status, the reasons, and the numbers behind them."""

    judged: Statement
    status: str
    statement: str
    sentence: str
    comparisons: list[Comparison]
    table: Table

    def answer(
        self, figure: Mapping[str, Any], tables: Sequence[Table] = (), *, more: str = ""
    ) -> Answer:
        """Return the answer to a question; `more` is added to its sentence."""
        return Answer(
            " ".join(part for part in (self.sentence, more) if part),
            figure,
            [self.table, *tables],
            status=self.status,
            statement=self.statement,
            comparisons=[found.to_dict() for found in self.comparisons],
        )


def judge(
    values: Values,
    statement: Statement,
    *,
    control: str = NONE,
    level: float = LEVEL,
    items: Mapping[str, Any] | None = None,
    more_columns: Mapping[str, Mapping[str, Any]] | None = None,
) -> Judgement:
    """Compare every normalizer with `control`, and judge the statement for batch norm.

    Without batch norm the first normalizer is judged. `values` has one value for each seed; None
    stands for a run that diverged, and counts as the worst. `items` has the result of each held-out
    item in the finished runs. `more_columns` are added to the table.
    """
    found = _comparisons(values, statement, control, level, items or {})
    judged = next((c for c in found if c.a == "batch"), found[0] if found else None)
    others = [name for name in values if name != control]
    name = judged.a if judged else others[0] if others else "batch"
    return Judgement(
        statement,
        statement.status(judged.answer) if judged else "cannot tell",
        # Names may hold braces, which `format` would try to fill.
        statement.text.replace("{name}", subject(name)),
        _sentence(values, statement, control, found, judged),
        found,
        _table(values, statement, control, found, more_columns or {}),
    )


def subject(name: str) -> str:
    """Return a normalizer as the subject of a sentence.

    >>> subject("batch"), subject("group(groups=8)")
    ('Batch norm', 'The normalizer group(groups=8)')
    """
    return "Batch norm" if name == "batch" else f"The normalizer {name}"


def _comparisons(
    values: Values, statement: Statement, control: str, level: float, items: Mapping[str, Any]
) -> list[Comparison]:
    if control not in values:
        return []
    floor = _floor(values)
    samples = {
        name: replace(statement.sample(name, seeds, floor), items=items.get(name))
        for name, seeds in values.items()
    }
    reference = samples.pop(control)
    # A normalizer with a single seed must not prevent the comparison of the others.
    few = min(2, len(reference.values))
    others = [s for s in samples.values() if len(s.values) >= few]
    return against_control(
        reference, others, quantity=statement.quantity, margin=statement.margin, level=level
    )


def spreads(values: Values, *, higher_is_better: bool = False) -> dict[str, Spread]:
    """Return the spread over seeds of each normalizer's values."""
    return {
        name: spread(list(seeds.values()), higher_is_better=higher_is_better)
        for name, seeds in values.items()
    }


def _sentence(
    values: Values,
    statement: Statement,
    control: str,
    found: Sequence[Comparison],
    judged: Comparison | None,
) -> str:
    seeds = _centred(values, statement)
    if judged is None:
        return _without_comparison(statement, seeds, control)
    rest = [c for c in found if c is not judged]
    parts = [
        f"{_capital(statement.quantity)} {_beside(control)}: "
        f"{statement.spread_text(seeds[control])}.",
        f"{subject(judged.a)}: {statement.spread_text(seeds[judged.a])}, "
        f"{_judged_text(statement, judged)}.",
        *(_group(statement, answer, rest) for answer in ("better", "harmful", "equivalent")),
        _untold([c.a for c in rest if c.answer == "cannot tell"]),
    ]
    return " ".join(part for part in parts if part)


def _centred(values: Values, statement: Statement) -> dict[str, Spread]:
    """Return spreads whose middle is the value that is compared."""
    found = spreads(values, higher_is_better=statement.larger_is_better)
    floor = _floor(values)
    return {
        name: {**seeds, "median": statement.centre(values[name], floor)}
        for name, seeds in found.items()
    }


def _floor(values: Values) -> float:
    """Return the smallest positive value of all."""
    known = [finite(value) for seeds in values.values() for value in seeds.values()]
    return min((value for value in known if value is not None and value > 0), default=1.0)


def _without_comparison(statement: Statement, seeds: Mapping[str, Spread], control: str) -> str:
    texts = [f"{name} {statement.spread_text(s)}" for name, s in seeds.items()]
    if control in seeds:
        reason = f"Nothing was run to compare with the model {_beside(control)}"
    else:
        reason = f"No run {_beside(control)} has a value to compare with"
    return f"{_capital(statement.quantity)}: {join(texts, most=4)}. {reason}."


def _capital(text: str) -> str:
    # A Greek letter is a symbol: a capital would be another one.
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def _beside(control: str) -> str:
    return "without normalization" if control == NONE else f"with {control}"


def _judged_text(statement: Statement, judged: Comparison) -> str:
    effect = statement.effect_text(judged)
    if judged.answer == "cannot tell":
        return f"{effect}; {_doubt(judged)}"
    if judged.answer == "equivalent" or judged.low is None:
        return f"{statement.answer_text(judged.answer)}: {effect}"
    return effect


def _doubt(judged: Comparison) -> str:
    if judged.test.startswith("none"):
        return "with one seed this may be chance"
    needed = f" (about {judged.seeds} seeds would decide)" if judged.seeds else ""
    return f"with these seeds this may be chance{needed}"


def _group(statement: Statement, answer: str, rest: Sequence[Comparison]) -> str:
    chosen = [c for c in rest if c.answer == answer]
    chosen.sort(key=lambda c: -abs(math.inf if c.difference is None else c.difference))
    texts = [f"{c.a} {statement.effect_text(c)}" for c in chosen]
    words = _capital(statement.answer_text(answer))
    return f"{words}: {join(texts, most=NAMED)}." if texts else ""


def _untold(names: Sequence[str]) -> str:
    return f"These seeds do not decide for {join(names, most=NAMED)}." if names else ""


def _table(
    values: Values,
    statement: Statement,
    control: str,
    found: Sequence[Comparison],
    more: Mapping[str, Mapping[str, Any]],
) -> Table:
    """Return means and ranges, and the comparison of each normalizer with the control."""
    compared = {c.a: c for c in found}
    mean = "mean" if statement.unit else "geometric mean"
    if any(None in seeds.values() for seeds in values.values()):
        mean += f", or the median if some runs are {statement.lost}"
    columns = ["normalizer", "seeds", statement.lost, mean, "lowest", "highest"]
    columns += [statement.effect]
    columns += ["interval from", "interval to", "answer", "seeds to decide", "test", *more]
    rows = [
        [
            name,
            *(seeds[key] for key in ("n", "diverged")),
            *ends(seeds, statement.lost),
            *_compared(compared.get(name), name == control, statement),
            *(column.get(name, "not measured") for column in more.values()),
        ]
        for name, seeds in _centred(values, statement).items()
    ]
    return table(_capital(statement.quantity), columns, rows)


def _compared(
    found: Comparison | None, is_control: bool, statement: Statement
) -> list[float | int | str]:
    if found is None:
        word = "reference" if is_control else "too few seeds"
        return ["not applicable", "not applicable", "not applicable", word, *["not applicable"] * 2]
    return [
        *_numbers(found, statement),
        statement.answer_text(found.answer),
        found.seeds or ("decided" if found.answer != "cannot tell" else "unknown"),
        found.test,
    ]


def _numbers(found: Comparison, statement: Statement) -> list[float | str]:
    sign = 1 if statement.larger_is_better or not statement.unit else -1
    low, high = (found.low, found.high) if sign == 1 else (found.high, found.low)
    unknown = statement.lack(found)
    scaled = [None if v is None else sign * v for v in (found.difference, low, high)]
    numbers = [v if v is None or statement.unit else _exp(v) for v in scaled]
    return [unknown if v is None else v for v in numbers]


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # beyond that it would overflow
