"""The evidence for a cause: the findings that it explains, and the trial of its repair."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from anynorm.doctor.causes.cause import Cause
from anynorm.doctor.causes.ward import Trial, Ward
from anynorm.doctor.finding import Finding

__all__ = ["Evidence", "counted"]


def counted(layers: Iterable[str]) -> str:
    """Name one layer, or count several and name the first.

    >>> counted(["bn1"]), counted(["bn1", "bn2", "bn1"])
    ("'bn1'", "2 layers, first 'bn1'")
    """
    names = list(dict.fromkeys(layers))
    return repr(names[0]) if len(names) == 1 else f"{len(names)} layers, first {names[0]!r}"


@dataclass(frozen=True)
class Evidence:
    """The evidence from which a cause is made.

    `name` replaces the name of the row. `go_on` repairs the model or the data for the rest of the
    search, so that a second cause is measured without the first. `effect` is used if no repair can
    be tried.
    """

    findings: list[Finding]
    words: str
    fix: str
    trial: Trial | None = None
    sure: str = "certain"
    repair: str = "none"
    refused: str = ""
    effect: str = ""
    data: bool = False
    unproven: str = ""
    name: str = ""
    edits: tuple[tuple[str, float], ...] = ()
    layers: tuple[str, ...] = ()
    go_on: Callable[[Ward], None] | None = None

    def cause(self, name: str) -> Cause:
        """Return the cause; a refused repair is not offered."""
        refused = self.refused or ("" if self.trial is None else self.trial.refusal)
        effect = self.effect or ("not tried" if self.trial is None else self.trial.said)
        return Cause(
            name=self.name or name,
            findings=tuple(self.findings),
            evidence=self.words,
            fix="" if refused else self.fix,
            effect=effect,
            sure=self.sure,
            repair=self.repair,
            refused=refused,
            data=self.data,
            unproven="" if refused else self.unproven,
            edits=self.edits,
            layers=self.layers,
        )
