"""Normalizers that are not as they were recorded: check 32."""

from __future__ import annotations

from anynorm.doctor.case import CannotRunError, Case, Found, Numbers, Outcome
from anynorm.errors import listed
from anynorm.surgery.weights import Mismatch
from anynorm.surgery.weights.manifest import described

__all__ = ["otherwise"]

_SEVERITIES = {"outputs": "error", "training": "info"}


def otherwise(case: Case) -> Outcome:
    """Check 32."""
    if case.manifest is None:
        raise CannotRunError("manifest=")
    layers = [norm for norm in case.norms if not norm.line]
    every = described(case.model, layers).differences(case.manifest)
    found = [one for one in every if one.effect in _SEVERITIES]
    groups: dict[tuple[str, ...], list[Mismatch]] = {}
    for one in found:
        groups.setdefault((one.effect, one.what, one.here, one.recorded), []).append(one)
    for (effect, what, here, recorded), those in groups.items():
        names = [one.layer for one in those]
        numbers: Numbers = {"here": here, "recorded": recorded, "layers": len(names)}
        words = "" if len(names) == 1 else f", in {len(names)} layers: {listed(names)}"
        message = f"{what} is {here} and was recorded as {recorded}{words}"
        yield Found(names[0], message, numbers, 1.0, _SEVERITIES[effect])
