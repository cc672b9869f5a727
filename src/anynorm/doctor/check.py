"""One check: what it measures, and the advice for its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anynorm.doctor.case import CannotRunError, Case, Outcome
from anynorm.doctor.finding import Finding, Skipped

__all__ = ["Check", "run_checks"]

# What a check may need, by name, and whether it was given.
_GIVEN: dict[str, Callable[[Case], bool]] = {
    "batches": lambda case: case.survey is not None,
    "batches or steps=": lambda case: case.survey is not None or case.steps is not None,
    "averaged=": lambda case: case.survey is not None and case.survey.averaged is not None,
    "target=": lambda case: case.target is not None,
    "source=": lambda case: case.source is not None,
    "manifest=": lambda case: case.manifest is not None,
    "optimizer=": lambda case: case.optimizer is not None,
    "accumulation= above 1": lambda case: case.accumulation > 1,
}


@dataclass(frozen=True)
class Check:
    """A row of the table.

    `measures`, `threshold`, `why` and `citation` are sentences for readers; `fix` is a line of
    code in which ``{layer}`` stands for the layer's quoted name.  `severity` is the default of a
    finding; if there are several, `severities` describes them.  `run` yields the findings on a
    `Case`, or on the kind of it that its table is for.
    """

    number: int
    name: str
    measures: str
    threshold: str
    severity: str
    why: str
    fix: str
    citation: str
    run: Callable[[Any], Outcome]
    needs: tuple[str, ...] = ("batches",)
    severities: str = ""

    def missing(self, case: Case) -> list[str]:
        """What the check needs but the case does not have."""
        return [need for need in self.needs if not _GIVEN[need](case)]

    def findings(self, case: Case) -> Iterator[Finding]:
        """Run the check, and add the advice to its findings.

        Raises `CannotRunError` if something is missing.
        """
        if missing := self.missing(case):
            raise CannotRunError(" and ".join(missing))
        lines = {norm.name: norm.line for norm in case.norms if norm.line}
        for order, found in enumerate(self.run(case)):
            fix = found.fix or self.fix.format(layer=repr(found.layer))
            if found.layer in lines:
                fix = f"# change the call in {lines[found.layer]}"
            yield Finding(
                check=self.number,
                name=self.name,
                severity=found.severity or self.severity,
                layer=found.layer,
                message=found.message,
                numbers=found.numbers,
                threshold=self.threshold,
                why=self.why,
                fix=fix,
                citation=self.citation,
                effect=found.effect,
                order=order,
            )


def run_checks(table: Sequence[Check], case: Case) -> tuple[list[Finding], list[Skipped]]:
    """Run each check; the second list has those that lack something."""
    outcomes = [_outcome(check, case) for check in table]
    skipped = [one for one in outcomes if isinstance(one, Skipped)]
    return [f for one in outcomes if not isinstance(one, Skipped) for f in one], skipped


def _outcome(check: Check, case: Case) -> list[Finding] | Skipped:
    try:
        return list(check.findings(case))
    except CannotRunError as error:
        return Skipped(check.number, check.name, str(error))
