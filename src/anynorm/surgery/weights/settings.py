"""What a state dict does not say about one normalizer, as data that can be written and read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from anynorm.errors import AnynormError
from anynorm.spec import Dialect, Learned, Renorm, Scale, Spec

__all__ = ["NormSettings", "from_plain", "to_plain"]


@dataclass(frozen=True)
class NormSettings:
    """What a state dict does not say about one normalizer.

    Args:
        spec: its specification; None if its class does not show it, as that of a subclass.
        sizes: the sizes of the parts of split axes, such as the number of groups.
        shape: the shape of γ and β, or that which they would have; None if it is not known yet.
        eps: ε; "machine" for the machine epsilon of the input's type, None if it is not known.
        statistics: which statistics eval mode uses: those of the "input", "running" ones, or
            "constant" ones, which training does not update either.
        momentum: the weight of the newest batch in running statistics; None for the cumulative
            average.
        tracks: whether training updates running statistics (`track_running_stats`).
        training: whether the layer is in train mode.
        batches: the number of batches in the running statistics.

    Example:
        >>> NormSettings(Spec.of("n c [...]"), eps=1e-3).statistics
        'input'
    """

    spec: Spec | None
    sizes: Mapping[str, int] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    eps: float | Literal["machine"] | None = None
    statistics: Literal["input", "running", "constant"] = "input"
    momentum: float | None = None
    tracks: bool = False
    training: bool = False
    batches: int = 0

    @property
    def by_moments(self) -> bool:
        """Whether eval mode computes γ · (x − mean) / √(var + ε) + β with stored statistics."""
        return self.statistics != "input" and self.spec is not None and not self.spec.whitens


def to_plain(settings: NormSettings) -> dict[str, Any]:
    """Return settings as values that JSON has.

    >>> to_plain(NormSettings(None, {"g": 2}, eps=1e-3))["sizes"]
    {'g': 2}
    """
    spec, shape = settings.spec, settings.shape
    return {
        **_plain(settings),
        "spec": None if spec is None else _plain_spec(spec),
        "sizes": dict(settings.sizes),
        "shape": None if shape is None else list(shape),
    }


def from_plain(plain: Mapping[str, Any]) -> NormSettings:
    """Return the settings that :func:`to_plain` made plain.

    Raises an `AnynormError`, or what Python raises for values of other types.

    >>> settings = NormSettings(Spec.of("n (g [c]) [...]"), {"g": 2}, (4,), eps=1e-3)
    >>> from_plain(to_plain(settings)) == settings
    True
    """
    spec, shape = plain["spec"], plain["shape"]
    rest = {name: value for name, value in plain.items() if name not in ("spec", "sizes", "shape")}
    return NormSettings(
        None if spec is None else _spec(spec),
        {_checked(name, str): _checked(size, int) for name, size in plain["sizes"].items()},
        None if shape is None else tuple(_checked(size, int) for size in shape),
        **_arguments(NormSettings, rest),
    )


def _plain_spec(spec: Spec) -> dict[str, Any]:
    source = spec.source
    return {
        "pattern": spec.pattern.text,
        "center": spec.center,
        "scale": None if spec.scale is None else _plain(spec.scale),
        "on": spec.on,
        "learned": _plain(spec.learned),
        "dialect": _plain(spec.dialect),
        "source": _plain(source) if isinstance(source, Renorm) else source,
    }


def _spec(plain: Mapping[str, Any]) -> Spec:
    scale, source = plain["scale"], plain["source"]
    return Spec.of(
        plain["pattern"],
        scale=None if scale is None else Scale(**_arguments(Scale, scale)),
        learned=Learned(**_arguments(Learned, plain["learned"])),
        dialect=Dialect(**_arguments(Dialect, plain["dialect"])),
        source=source if source == "batch" else Renorm(**_arguments(Renorm, source)),
        **_arguments(Spec, {"center": plain["center"], "on": plain["on"]}),
    )


def _plain(part: Any) -> dict[str, Any]:
    values = {one.name: getattr(part, one.name) for one in fields(part) if one.init}
    # JSON has no infinity.
    infinite = {k: "inf" for k, v in values.items() if isinstance(v, float) and v == math.inf}
    return values | infinite


def _arguments(kind: type[Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a part's fields, each of the type that its field has."""
    hints = get_type_hints(kind)
    return {name: _checked(value, hints[name]) for name, value in plain.items()}


def _checked(value: Any, hint: Any) -> Any:
    if value == "inf" and _fits(math.inf, hint):
        return math.inf
    if not _fits(value, hint):
        raise AnynormError(f"{value!r:.40} is not {getattr(hint, '__name__', hint)}.")
    return value


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if hint is float:
        exact = type(value) is int and abs(value) <= 2**53
        return exact or (isinstance(value, float) and not math.isnan(value))
    return type(value) is hint
