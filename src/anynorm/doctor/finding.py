"""What a check found, and a check that could not run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from anynorm.doctor.case import Numbers

__all__ = ["SEVERITIES", "Finding", "Skipped", "arranged"]

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """A fault that a check found, with evidence and advice.

    Args:
        check: the number of the check.
        name: its name.
        severity: "error", "warning" or "info".
        layer: the name of the layer; "" for the model.
        message: what was found.
        numbers: the measured numbers, by name.
        threshold: the threshold, in words.
        why: why it matters.
        fix: a line of code that repairs it.
        citation: the source.
        effect: the measured number divided by its threshold.
        order: the place in the forward pass.

    Example:
        >>> from torch import nn
        >>> import anynorm
        >>> found = anynorm.doctor(nn.BatchNorm1d(3, momentum=0.99).eval(), checks=[7]).findings[0]
        >>> found.check, found.severity
        (7, 'warning')
    """

    check: int
    name: str
    severity: str
    layer: str
    message: str
    numbers: Numbers
    threshold: str
    why: str
    fix: str
    citation: str
    effect: float
    order: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that are not finite become text."""
        plain = {**vars(self), "numbers": {k: _plain(v) for k, v in self.numbers.items()}}
        return {**plain, "effect": _plain(self.effect)}


@dataclass(frozen=True)
class Skipped:
    """A check that could not run, and what it needs.

    Args:
        check: the number of the check.
        name: its name.
        needs: what is missing.

    Example:
        >>> print(Skipped(1, "running mean", "batches"))
        1 (running mean) needs batches
    """

    check: int
    name: str
    needs: str

    @property
    def asked(self) -> bool:
        """Whether it lacks something that a user would normally give, such as labels.

        Arguments for special situations do not count, such as `source=` for a converted model.
        """
        return not any(word in self.needs for word in _OTHERS)

    def __str__(self) -> str:
        return f"{self.check} ({self.name}) needs {self.needs}"


# Arguments for situations that most models are not in.
_OTHERS = (
    *("averaged=", "target=", "source=", "manifest=", "optimizer=", "accumulation="),
    "process group",
)


def _plain(value: float | int | str) -> float | int | str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def arranged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort by severity, then by the largest effect of a check, then by the order of layers.

    A broken layer changes the inputs of later layers, so the first finding of a check is its cause.
    """
    every = list(findings)
    largest: dict[tuple[str, int], float] = {}
    for one in every:
        key = (one.severity, one.check)
        largest[key] = max(largest.get(key, 0.0), one.effect)
    return tuple(
        sorted(
            every,
            key=lambda one: (
                SEVERITIES.index(one.severity),
                -largest[one.severity, one.check],
                one.check,
                one.order,
            ),
        )
    )
