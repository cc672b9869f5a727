"""The table of causes, and the search through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from anynorm.doctor.causes import inputs, stale, state, structure
from anynorm.doctor.causes.cause import Cause
from anynorm.doctor.causes.evidence import Evidence
from anynorm.doctor.causes.ward import Ward
from anynorm.doctor.finding import SEVERITIES, Finding

__all__ = ["CAUSES", "Row", "explained"]


@dataclass(frozen=True)
class Row:
    """A cause: its name, the function that looks for evidence, and the evidence in words."""

    name: str
    look: Callable[[Ward], Evidence | None]
    evidence: str


# Facts about the model come first, then causes that a trial distinguishes from others. The causes
# that are assumed if nothing else fits are last. Each row removes the findings that it explains,
# so later rows do not see them.
CAUSES: tuple[Row, ...] = (
    Row("broken values", state.broken, "a value that is not finite, or a negative variance"),
    Row(
        "conversion changed the function",
        structure.conversion,
        "the outputs differ from those of source=",
    ),
    Row(
        "shared layer",
        structure.shared,
        "calls of one layer have different moments (check 11); tried with statistics for each call",
    ),
    Row(
        "ε changed",
        state.epsilon,
        "ε compared with the running variances, in all layers that have this ε; tried with 1e-5 "
        "and 1e-3",
    ),
    Row(
        "too few batches",
        stale.few_batches,
        "the share of the initial statistics that the count of batches and the momentum leave; "
        "with a momentum below 1e-4 the cause is called momentum lost",
    ),
    Row(
        "dropout in front of batch norm", stale.dropout, "the statistics are right with dropout on"
    ),
    Row(
        "input preprocessing",
        inputs.preprocessing,
        "the first batch norm's statistics fit after a change of the input: a factor, a "
        "shift, another order of channels, standardisation; tried on all layers and the "
        "loss",
    ),
    Row(
        "momentum in the other convention",
        stale.momentum,
        "a momentum of 0.5 or more; explains that layer and those behind it",
    ),
    Row(
        "averaged weights without statistics",
        stale.averaged,
        "the model has a name of averaged weights; or origin= has one, and statistics are off in "
        "half of the layers; or statistics are off in 80% of the layers, with running variances "
        "above the data's",
    ),
    Row(
        "statistics of one layer",
        stale.one_layer,
        "when one layer's statistics are recomputed, those of all later layers fit",
    ),
    Row(
        "running statistics that lag behind the weights",
        stale.lag,
        "no other cause explains the findings: the statistics are of other weights or other data",
    ),
    Row("another domain", structure.domain, "tests 1 and 2 on target="),
    Row(
        "small batches",
        structure.small_batches,
        "few values for each statistic; a last batch of one sample",
    ),
    Row(
        "frozen layers whose statistics move",
        state.frozen,
        "γ and β without gradients, running statistics that move",
    ),
    Row("train mode", state.train_mode, "layers in train mode"),
)


def explained(ward: Ward) -> tuple[list[Finding], list[Cause]]:
    """Find the causes of a ward's findings, the worst first.

    Returns the findings and the causes. The fix of a finding is replaced by that of its cause. An
    error or warning that no row explains becomes a cause of its own.
    """
    every = list(ward.findings)
    causes: list[Cause] = []
    for row in CAUSES:
        evidence = row.look(ward)
        if evidence is None or not evidence.findings:
            continue
        cause = evidence.cause(row.name)
        causes.append(cause)
        ward.findings = [f for f in ward.findings if not _among(f, cause.findings)]
        if evidence.go_on is not None and not cause.refused:
            evidence.go_on(ward)
    causes += _of_their_own(ward.findings)
    causes.sort(key=lambda cause: SEVERITIES.index(cause.severity))
    return _with_fixes(every, causes)


def _among(finding: Finding, findings: Sequence[Finding]) -> bool:
    return any(finding is one for one in findings)


def _of_their_own(findings: Sequence[Finding]) -> list[Cause]:
    """Return a cause for each check with findings that no row explains."""
    checks = dict.fromkeys(one.check for one in findings if one.severity != "info")
    found = []
    for check in checks:
        own = [one for one in findings if one.check == check and one.severity != "info"]
        first = own[0]
        words = f"{first.layer or 'the model'}: {first.message}"
        effect = "not tried"
        repair = "layer" if check in (12, 14) else "none"
        found.append(Cause(first.name, tuple(own), words, first.fix, effect, repair=repair))
    return found


def _with_fixes(
    findings: Sequence[Finding], causes: Sequence[Cause]
) -> tuple[list[Finding], list[Cause]]:
    """Replace the fix of each finding by that of the cause which explains it."""
    new: dict[int, Finding] = {}
    for cause in causes:
        for one in cause.findings:
            advice = cause.fix or f"# no repair is offered: {cause.refused}"
            new[id(one)] = one if cause.repair == "layer" else replace(one, fix=advice)
    fixed = [new.get(id(one), one) for one in findings]
    return fixed, [replace(c, findings=tuple(new[id(f)] for f in c.findings)) for c in causes]
