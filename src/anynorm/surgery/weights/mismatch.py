"""What differs between the settings of a normalizer and those that were recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from anynorm.errors import ShapeError, listed
from anynorm.pattern import Pattern
from anynorm.spec import SCALES, Scale, Spec
from anynorm.surgery.weights.settings import NormSettings

__all__ = ["Effect", "Mismatch", "grouped", "mismatches"]

Effect = Literal["outputs", "training", "none"]
_SAME = 1e-6  # relative: a setting may have passed through single precision
_RANKS = range(2, 6)
_EPS = {"inside": "√(s² + ε)", "max": "max(s, ε)"}
_MODES = {True: "train", False: "eval"}


@dataclass(frozen=True)
class Mismatch:
    """A setting of a normalizer that is not as it was recorded.

    Args:
        layer: the name of the layer.
        what: the setting, such as "ε".
        here: its value here, in words.
        recorded: its value in the record, in words.
        effect: what it changes: the "outputs" in eval mode; only the "training"; or "none", as the
            mode and the count of batches, and the rounding of 16-bit results.

    Example:
        >>> print(Mismatch("bn", "ε", "1e-05", "0.001", "outputs"))
        'bn': ε is 1e-05 and was recorded as 0.001
    """

    layer: str
    what: str
    here: str
    recorded: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.layer!r}: {self.what} is {self.here} and was recorded as {self.recorded}"


def grouped(found: Iterable[Mismatch]) -> list[str]:
    """Say each difference once, with the layers that have it.

    >>> pair = [Mismatch(name, "ε", "1e-05", "0.001", "outputs") for name in ("a", "b")]
    >>> grouped(pair)
    ["ε is 1e-05 and was recorded as 0.001 ('a', 'b')"]
    """
    layers: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        layers.setdefault((one.what, one.here, one.recorded), []).append(one.layer)
    return [
        f"{what} is {here} and was recorded as {recorded} ({listed(names, 3)})"
        for (what, here, recorded), names in layers.items()
    ]


def mismatches(
    layer: str, here: NormSettings | None, recorded: NormSettings | None
) -> Iterator[Mismatch]:
    """Compare the settings of one layer; None stands for no normalizer.

    What one side does not know is not compared.
    """
    if here is None or recorded is None:
        yield Mismatch(layer, "the normalizer", _pattern(here), _pattern(recorded), "outputs")
        return
    rows = [*_specs(here, recorded), *_state(here, recorded)]
    for what, (one, other), effect in rows:
        if one != other:
            yield Mismatch(layer, what, one, other, effect)


_Row = tuple[str, tuple[str, str], Effect]


def _specs(here: NormSettings, recorded: NormSettings) -> Iterator[_Row]:
    one, other = here.spec, recorded.spec
    if one is None or other is None:
        return
    # Stored moments are used alike, whatever values training takes them over.
    moments = here.by_moments and recorded.by_moments
    effect: Effect = "training" if moments else "outputs"
    if here.sizes != recorded.sizes or not _same_sets(one.pattern, other.pattern):
        yield "the pattern", (_pattern(here), _pattern(recorded)), effect
    yield "μ", (_center(one), _center(other)), "outputs"
    divided = one.scale is not None and other.scale is not None
    yield "σ", (_scale(one.scale), _scale(other.scale)), effect if divided else "outputs"
    if "none" not in (one.learned.gain, other.learned.gain):
        yield "γ", (_gain(one), _gain(other)), "outputs"
    yield "σ", (_EPS[one.dialect.eps], _EPS[other.dialect.eps]), "outputs"
    yield "the source of statistics in training", (str(one.source), str(other.source)), effect
    yield "the rounding", (_rounding(one), _rounding(other)), "none"


def _state(here: NormSettings, recorded: NormSettings) -> Iterator[_Row]:
    if None not in (here.shape, recorded.shape):
        yield "the shape of γ and β", (str(here.shape), str(recorded.shape)), "outputs"
    divides = [one.spec is None or one.spec.scale is not None for one in (here, recorded)]
    if None not in (here.eps, recorded.eps) and all(divides):
        yield "ε", _numbers(here.eps, recorded.eps), "outputs"
    kinds = (here.statistics, recorded.statistics)
    effect: Effect = "outputs" if "input" in kinds else "training"
    yield "the kind of statistics", kinds, effect
    if kinds == ("running", "running"):
        yield "momentum", _momenta(here.momentum, recorded.momentum), "training"
        yield "track_running_stats", (str(here.tracks), str(recorded.tracks)), "training"
    yield "the mode", (_MODES[here.training], _MODES[recorded.training]), "none"
    yield "the count of batches", (str(here.batches), str(recorded.batches)), "none"


def _pattern(settings: NormSettings | None) -> str:
    if settings is None:
        return "missing"
    if settings.spec is None:
        return "of a class of its own"
    sizes = ", ".join(f"{name}={size}" for name, size in sorted(settings.sizes.items()))
    return f"'{settings.spec.pattern}'" + (f" with {sizes}" if sizes else "")


def _same_sets(one: Pattern, other: Pattern) -> bool:
    """Whether two patterns mean the same for inputs of every rank that both take."""
    plans = [(_plan(one, rank), _plan(other, rank)) for rank in _RANKS]
    pairs = [pair for pair in plans if None not in pair]
    return one == other or (bool(pairs) and all(a == b for a, b in pairs))


def _plan(pattern: Pattern, rank: int) -> tuple[Any, ...] | None:
    try:
        plan = pattern.plan(rank)
    except ShapeError:
        return None
    return plan.first, [[part.shared for part in axis] for axis in plan.axes]


def _center(spec: Spec) -> str:
    return "the mean" if spec.center else "0"


def _scale(scale: Scale | None) -> str:
    if scale is None:
        return "1"
    return next((name for name, known in SCALES.items() if known == scale), str(scale))


def _gain(spec: Spec) -> str:
    offset = spec.learned.offset
    return f"{offset:g} + w" if offset else "w"


def _rounding(spec: Spec) -> str:
    return f"'{spec.dialect.statistics}', {spec.dialect.cast} γ"


def _numbers(one: Any, other: Any) -> tuple[str, str]:
    """Two settings as text; the same text for numbers that differ by rounding only."""
    values = (one, other)
    if all(isinstance(value, (int, float)) for value in values):
        other = one if math.isclose(one, other, rel_tol=_SAME) else other
    return tuple(f"{v:.9g}" if isinstance(v, float) else str(v) for v in (one, other))  # type: ignore[return-value]


def _momenta(one: float | None, other: float | None) -> tuple[str, str]:
    here, recorded = _numbers(one, other)
    both = one is not None and other is not None and here != recorded
    if both and math.isclose(one + other, 1.0, rel_tol=_SAME):  # type: ignore[operator]
        here += " (1 − m, the other convention)"
    return here, recorded
