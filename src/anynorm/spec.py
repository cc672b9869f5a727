"""The one formula as data: h = φ(γ · (x − μ) / σ + β).

A :class:`Spec` answers the questions of the formula: over which axes μ and σ are taken (a
:class:`~anynorm.pattern.Pattern`), what μ is, what σ is (a :class:`Scale`), whether the
activations or the weights are normalized, what γ and β are (:class:`Learned`), where ε stands and
in which types it is computed (:class:`Dialect`), and whether running statistics correct those of
the batch (:class:`Renorm`).  Its invariances follow from those answers.

Where no dialect says otherwise, ``σ = sqrt(s² + ε)`` for the scale ``s`` that was measured.
"""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from types import NoneType
from typing import Any, Literal, NamedTuple

from anynorm.errors import AnynormError, UnknownNameError
from anynorm.pattern import Pattern
from anynorm.pattern.axes import CHANNELS, Axes

__all__ = [
    "SCALES",
    "Constant",
    "Dialect",
    "Invariances",
    "Learned",
    "Renorm",
    "Scale",
    "Spec",
]

Constant = float | Literal["gaussian", "sum"]
Target = Literal["input", "weight", "both"]


@dataclass(frozen=True)
class Scale:
    """How the scale s of a set of n values is measured: s = C · (mean |d|^p)^(1/p).

    Args:
        p: the power, at least 1; ``inf`` gives the largest deviation.
        origin: the point that the deviations d are measured from, the mean or zero.
        constant: C: a number, ``"sum"`` (n^(1/p): a sum in place of the mean, as in a vector's
            norm) or ``"gaussian"`` (on Gaussian data s estimates the standard deviation: √(π/2) for
            p = 1, 1/√(2 ln n) for p = ∞).
        root: ``"zca"`` or ``"pca"``, a square root of the covariance matrix in place of s.

    Raises:
        AnynormError: `p` is below 1 or no number, or `constant` is none of the above.

    Example:
        >>> Scale(p=1.0, constant="gaussian") == SCALES["l1"]
        True

    Reference:
        Hoffer et al. 2018, arXiv:1803.01814 (constants); Huang et al. 2018, arXiv:1804.08450 (roots
        of the covariance matrix).
    """

    p: float = 2.0
    origin: Literal["mean", "zero"] = "mean"
    constant: Constant = 1.0
    root: Literal["zca", "pca"] | None = None
    # Kept, because torch.compile with dynamic=True cannot trace the gamma function.
    _gaussian: float = field(init=False, repr=False, compare=False, default=1.0)

    def __post_init__(self) -> None:
        if not _is_number(self.p) or not self.p >= 1:
            raise AnynormError(f"p={self.p!r} gives no norm: p is a number of at least 1. Try p=2.")
        if self.constant not in ("gaussian", "sum") and not _is_positive(self.constant):
            raise AnynormError(
                f"constant={self.constant!r}: give a positive number, 'gaussian' or 'sum'."
            )
        object.__setattr__(self, "_gaussian", _gaussian_factor(self.p))

    def factor(self, count: float) -> float:
        """Return the constant C for a set of `count` values.

        >>> round(SCALES["l1"].factor(100), 4), round(SCALES["linf"].factor(100), 4)
        (1.2533, 0.3295)
        """
        if self.constant == "sum":
            return float(count ** (1.0 / self.p))
        if self.constant == "gaussian":
            return _largest_factor(count) if self.p == math.inf else self._gaussian
        return self.constant

    @property
    def is_standard_deviation(self) -> bool:
        """Whether s is the plain standard deviation, the one torch's batch norm takes."""
        return self == _STD


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _need_known(owner: object, **known: tuple[str, ...]) -> None:
    """Raise `UnknownNameError` for a field whose value is not one of those that are known."""
    for name, values in known.items():
        if (value := getattr(owner, name)) not in values:
            raise UnknownNameError(f"{type(owner).__name__}.{name}", value, values)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf


def _largest_factor(count: float) -> float:
    """One over the largest of `count` standard Gaussian values, to leading order."""
    return 1.0 / math.sqrt(2.0 * math.log(count)) if count > 1 else 1.0


def _gaussian_factor(p: float) -> float:
    """One over the p-th absolute moment of a standard Gaussian to the power 1/p; 1 for p = ∞."""
    if math.isinf(p):
        return 1.0
    moment = 2.0 ** (p / 2.0) * math.gamma((p + 1.0) / 2.0) / math.sqrt(math.pi)
    return float(moment ** (-1.0 / p))


_STD = Scale()

SCALES: dict[str, Scale] = {
    "std": _STD,
    "rms": Scale(origin="zero"),
    "l1": Scale(p=1.0, constant="gaussian"),
    "linf": Scale(p=math.inf, constant="gaussian"),
    "lp": Scale(origin="zero"),
    "norm": Scale(origin="zero", constant="sum"),
    "zca": Scale(root="zca"),
    "pca": Scale(root="pca"),
}


@dataclass(frozen=True)
class Learned:
    """What γ and β are.

    Args:
        gain: whether γ is one number for each "channel", one "scalar" for all, or "none" (γ = 1).
        offset: γ is stored as a parameter w with γ = `offset` + w.
        start: where γ starts: at "one", or at the "root" of the number of channels.
        bias: whether there is β; None for one where there is γ, and μ is subtracted of inputs.

    Raises:
        UnknownNameError: `gain` or `start` is none of the above.

    Example:
        >>> Spec.of("... [c]", center=False, scale="rms", learned=Learned(offset=1.0)).is_plain
        False
    """

    gain: Literal["channel", "scalar", "none"] = "channel"
    offset: float = 0.0
    start: Literal["one", "root"] = "one"
    bias: bool | None = None

    def __post_init__(self) -> None:
        _need_known(self, gain=("channel", "scalar", "none"), start=("one", "root"))


@dataclass(frozen=True)
class Dialect:
    """Where ε stands, and how 16-bit inputs are rounded: the last digits of a result.

    Args:
        eps: "inside" for σ = √(s² + ε), "outside" for σ = s + ε, "max" for σ = max(s, ε).
        statistics: how 16-bit inputs are computed: "float32" for each step in float32, as model
            code writes it, bit for bit; "best" for what is fastest with no less precision.
        cast: when the result gets the type of the input, "after" γ or "before" it.

    Raises:
        UnknownNameError: An argument is none of the above.

    Example:
        >>> Dialect(eps="max") == Dialect()
        False
    """

    eps: Literal["inside", "outside", "max"] = "inside"
    statistics: Literal["best", "float32"] = "best"
    cast: Literal["after", "before"] = "after"

    def __post_init__(self) -> None:
        known = {"statistics": ("best", "float32"), "cast": ("after", "before")}
        _need_known(self, eps=("inside", "outside", "max"), **known)


@dataclass(frozen=True)
class Renorm:
    """Running statistics correct those of the batch in training: ẑ = r · (x − μ) / σ + d.

    r = σ / σ_running and d = (μ − μ_running) / σ_running are constants for the gradient.  Between
    the limits ẑ is what evaluation computes; r = 1 and d = 0 are batch norm.

    Args:
        r_max: r lies between 1 / `r_max` and `r_max`.
        d_max: d lies between −`d_max` and `d_max`.

    Raises:
        AnynormError: `r_max` is below 1 or `d_max` below 0.

    Example:
        >>> Renorm(r_max=1.0, d_max=0.0)
        Renorm(r_max=1.0, d_max=0.0)

    Reference:
        Ioffe 2017, arXiv:1702.03275.
    """

    r_max: float = 3.0
    d_max: float = 5.0

    def __post_init__(self) -> None:
        for name, least in (("r_max", 1), ("d_max", 0)):
            value = getattr(self, name)
            if not _is_number(value) or not value >= least:
                raise AnynormError(f"{name}={value!r}: give a number of at least {least}.")


class Invariances(NamedTuple):
    """Under which changes of a linear layer's weights or data the normalized output stays the same.

    The first six are changes of the pre-activations ``a = W x`` that :math:`W` or the data cause,
    for a positive factor.

    Args:
        unit_weights: one unit's weights times a factor.
        all_weights: all weights times a factor.
        sample: one sample's data times a factor.
        data: all data times a factor.
        unit_shift: a constant added to one unit (a bias, or a fixed shift of the data).
        sample_shift: a constant added to every unit of one sample.
        weight_shift: a constant added to one unit's incoming weights.

    Example:
        >>> Spec.of("[n] c [...]").invariances.unit_weights
        True

    Reference:
        Ba et al. 2016, arXiv:1607.06450, table 1.
    """

    unit_weights: bool
    all_weights: bool
    sample: bool
    data: bool
    unit_shift: bool
    sample_shift: bool
    weight_shift: bool


def _constants(part: object) -> tuple[Field[Any], ...]:
    """The arguments that a scale or a source was made with."""
    return tuple(f for f in fields(part) if f.init) if is_dataclass(part) else ()


Source = Literal["batch"] | Renorm
_PLAIN_DIALECT = Dialect()


@dataclass(frozen=True)
class Spec:
    """A normalizer as data: the pattern, μ, σ, what is normalized, and what γ and β are.

    Build one from names with :meth:`of`.  Some attributes are questions that every call asks, so
    they are answered once: `is_identity`, whether the formula reduces to h = φ(γ · x + β);
    `is_standard`, whether μ is the mean and σ the standard deviation; `is_root_mean_square`,
    whether there is no μ and σ is the root mean square; `is_norm`, whether there is no μ and σ is
    the L2 norm; `whitens`, whether σ is a root of the covariance matrix of the channels of a group;
    `is_plain`, whether γ is stored as it is, there is no dialect, and training takes the statistics
    of the batch.

    Args:
        pattern: the axes, and which of them share one μ and σ.
        center: whether μ is subtracted.
        scale: what σ is; None for σ = 1.
        on: what is normalized: the "input", the "weight" or "both".
        learned: what γ and β are.
        dialect: where ε stands, and how 16-bit inputs are rounded.
        source: which statistics training takes: those of the "batch", or these corrected by
            running ones (:class:`Renorm`).

    Raises:
        AnynormError: The scale is a covariance root, and the pattern has no channels to whiten; or
            the dialect or the source does not go with the pattern and the scale.

    Example:
        >>> Spec.of("[n] c [...]").uses_batch
        True
        >>> Spec.of("... [c]", scale="rms", center=False).invariances.sample
        True
    """

    pattern: Pattern
    center: bool = True
    scale: Scale | None = _STD
    on: Target = "input"
    learned: Learned = Learned()
    dialect: Dialect = _PLAIN_DIALECT
    source: Source = "batch"
    is_identity: bool = field(init=False, repr=False, compare=False)
    is_standard: bool = field(init=False, repr=False, compare=False)
    is_root_mean_square: bool = field(init=False, repr=False, compare=False)
    is_norm: bool = field(init=False, repr=False, compare=False)
    whitens: bool = field(init=False, repr=False, compare=False)
    is_plain: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scale, plain = self.scale, not self.center
        answers = {
            "is_identity": plain and scale is None,
            "is_standard": self.center and scale is not None and scale.is_standard_deviation,
            "is_root_mean_square": plain and scale == SCALES["rms"],
            "is_norm": plain and scale == SCALES["norm"],
            "whitens": scale is not None and scale.root is not None,
            "is_plain": self._is_plain(),
        }
        for name, answer in answers.items():
            object.__setattr__(self, name, answer)
        if self.learned.bias is None:
            bias = self.center and self.learned.gain != "none" and self.on == "input"
            object.__setattr__(self, "learned", replace(self.learned, bias=bias))
        if self.whitens and not any(p.name == "c" and not p.shared for p in self.pattern.parts):
            raise AnynormError(
                f"whitening mixes the channels of a group, and pattern '{self.pattern}' has no "
                "unbracketed axis 'c'. Try '[n] (g c) [...]'."
            )
        if self.on != "input" and (self.learned.gain != "channel" or self.learned.offset):
            raise AnynormError(
                f"γ of a normalizer of the {self.on} is one number for each unit, which starts at "
                "the σ of its weights. Leave learned= out."
            )
        self._check_dialect()
        if self.source != "batch" and not self.pools_batch:
            raise AnynormError(
                f"batch renorm corrects the mean and variance of all values of a channel, and "
                f"'{self.pattern}' with this μ and σ has others. Try Spec.of('[n] c [...]', ...)."
            )

    def _is_plain(self) -> bool:
        stored = self.learned.offset == 0 and self.learned.gain != "scalar"
        return stored and self.dialect == _PLAIN_DIALECT and self.source == "batch"

    def _check_dialect(self) -> None:
        scale, dialect = self.scale, self.dialect
        quadratic = scale is not None and scale.p == 2 and not self.whitens
        own = self.on == "input" and not self.uses_batch and quadratic
        if dialect != _PLAIN_DIALECT and not own:
            raise AnynormError(
                f"{dialect} is for a std, rms or norm of the values of each sample; pattern "
                f"'{self.pattern}' on {self.on} with this scale has none. Leave dialect= out."
            )

    @classmethod
    def of(
        cls,
        pattern: str | Pattern,
        *,
        center: bool = True,
        scale: str | Scale | None = "std",
        p: float | None = None,
        constant: Constant | None = None,
        on: Target = "input",
        learned: Learned | None = None,
        dialect: Dialect = _PLAIN_DIALECT,
        source: Source = "batch",
    ) -> Spec:
        """Build a specification from a pattern's text and a scale's name.

        Args:
            pattern: the pattern, or its text.
            center: whether μ is subtracted.
            scale: what σ is: a key of ``SCALES``, a :class:`Scale`, or None for σ = 1.
            p, constant: values that replace those of the scale.
            on: what is normalized: the "input", the "weight" or "both".
            learned: what γ and β are; None for one γ for each channel, and β where μ is subtracted.
            dialect, source: as for the class.

        Returns:
            The specification.

        Raises:
            PatternError: The pattern cannot be read.
            UnknownNameError: There is no scale of that name.
            AnynormError: The scale is of another type, or the answers do not go together.
        """
        if isinstance(scale, str):
            if scale not in SCALES:
                raise UnknownNameError("scale", scale, SCALES)
            scale = SCALES[scale]
        if not isinstance(scale, (Scale, NoneType)):
            raise AnynormError(
                f"scale is of type {type(scale).__name__}; it must be a name, a Scale or None. "
                f"Known names: {', '.join(SCALES)}."
            )
        changes = {k: v for k, v in (("p", p), ("constant", constant)) if v is not None and scale}
        return cls(
            pattern if isinstance(pattern, Pattern) else Pattern.parse(pattern),
            center=center,
            scale=replace(scale, **changes) if scale else None,  # type: ignore[arg-type]
            on=on,
            learned=learned or Learned(),
            dialect=dialect,
            source=source,
        )

    def tuned(self, **constants: Any) -> Spec:
        """Return the specification with other constants of its scale or its source.

        Args:
            constants: the values by the names of the arguments of :class:`Scale` or
                :class:`Renorm`.

        Returns:
            The specification.

        Raises:
            UnknownNameError: Neither has a constant of that name.
            AnynormError: A value does not fit.

        Example:
            >>> Spec.of("[n] c", scale="lp").tuned(p=3.0).scale.p
            3.0
        """
        spec = self
        for name, value in constants.items():
            parts = {key: getattr(spec, key) for key in ("scale", "source")}
            known = {f.name: key for key, part in parts.items() for f in _constants(part)}
            if name not in known:
                raise UnknownNameError(f"constant of '{self.pattern}'", name, known)
            part = known[name]
            spec = replace(spec, **{part: replace(parts[part], **{name: value})})
        return spec

    def normalizes_as(self, other: Spec) -> bool:
        """Return whether both are one normalizer, with or without γ and β.

        Args:
            other: the other specification.

        Returns:
            Whether they differ in nothing but that one lacks γ, β or both.

        Example:
            >>> plain = Spec.of("n c [...]", learned=Learned("none"))
            >>> plain.normalizes_as(Spec.of("n c [...]"))
            True
        """
        mine, its = self.learned, other.learned
        gain = its.gain if "none" in (mine.gain, its.gain) else mine.gain
        return replace(self, learned=replace(its, gain=gain, offset=mine.offset)) == other

    @property
    def uses_batch(self) -> bool:
        """Whether samples share statistics, so that evaluation needs running statistics."""
        return self.on == "input" and not self.is_identity and "n" in self.pattern.shared

    @property
    def keeps_moments(self) -> bool:
        """Whether samples share statistics that are a mean and an s² of each channel.

        All that do evaluate alike, by γ · (x − mean) / √(s² + ε) + β with the running statistics.
        """
        return self.uses_batch and not self.whitens

    @property
    def estimates_population(self) -> bool:
        """Whether running statistics estimate the mean and variance of all values of a channel.

        This also holds where parts of the batch (k) have statistics of their own.
        """
        return self._is_batch_norm("k")

    @property
    def pools_batch(self) -> bool:
        """Whether each channel has the mean and variance of all its values in the batch.

        >>> Spec.of("[n ...] c").pools_batch, Spec.of("(k [n]) c [...]").pools_batch
        (True, False)
        """
        return self._is_batch_norm()

    def _is_batch_norm(self, *apart: str) -> bool:
        """Whether all axes but the channels share statistics, or are parts named in `apart`."""
        axes = self.pattern.axes
        own: Axes = tuple(axis for axis in axes if any(p.name in CHANNELS for p in axis))
        own = own or tuple(axis for axis in axes if not any(p.shared for p in axis))
        rest = [part for axis in axes if axis not in own for part in axis]
        single = not any(part.shared for axis in own for part in axis)
        together = all(part.shared or part.name in apart for part in rest)
        return self.uses_batch and self.is_standard and single and together

    @property
    def scales_channels(self) -> bool:
        """Whether each γ multiplies one channel whose statistics are its own."""
        named = any(part.name in CHANNELS for part in self.pattern.parts)
        single = self.learned.gain != "scalar"
        return self.on == "input" and named and self._keeps_units and single

    @property
    def invariances(self) -> Invariances:
        """The changes of weights and data that leave the output as it is (ε aside)."""
        own = self.source == "batch"  # running statistics know nothing of the change
        on_input, scaled = self.on != "weight", self.scale is not None and own
        centered = self.center and (self.scale is None or self.scale.origin == "mean") and own
        return Invariances(
            unit_weights=scaled and self._keeps_units,
            all_weights=scaled,
            sample=scaled and on_input and self._keeps_samples,
            data=scaled and on_input,
            unit_shift=centered and self.on == "input" and "c" not in self.pattern.shared,
            sample_shift=centered and self.on == "input" and self._keeps_samples,
            weight_shift=centered and self.on == "weight",
        )

    @property
    def _keeps_units(self) -> bool:
        """No statistic mixes two units (channels)."""
        return not self.whitens and "c" not in self.pattern.shared

    @property
    def _keeps_samples(self) -> bool:
        """No statistic mixes two samples."""
        return self.on == "both" or "n" not in self.pattern.shared
