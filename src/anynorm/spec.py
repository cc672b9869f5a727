"""The one formula as data: h = φ(γ · (x − μ) / σ + β).

A :class:`Spec` answers the questions of the formula: over which axes μ and σ are taken (a
:class:`~anynorm.pattern.Pattern`), what μ is, what σ is (a :class:`Scale`), and whether the
activations or the weights are normalized.  Its invariances follow from those answers.

Every σ obeys one rule for ε: ``σ = sqrt(s² + ε)``, where ``s`` is the scale that was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, Literal, NamedTuple

from anynorm.errors import AnynormError, UnknownNameError
from anynorm.pattern import Pattern
from anynorm.pattern.axes import CHANNELS, Axes

__all__ = ["SCALES", "Constant", "Invariances", "Scale", "Spec"]

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


@dataclass(frozen=True)
class Spec:
    """A normalizer without its parameters: the pattern, μ, σ and what is normalized.

    Build one from names with :meth:`of`.  Some attributes are questions that every call asks, so
    they are answered once: `is_identity`, whether the formula reduces to h = φ(γ · x + β);
    `is_standard`, whether μ is the mean and σ the standard deviation; `is_root_mean_square`,
    whether there is no μ and σ is the root mean square; `is_norm`, whether there is no μ and σ is
    the L2 norm; `whitens`, whether σ is a root of the covariance matrix of the channels of a group.

    Args:
        pattern: the axes, and which of them share one μ and σ.
        center: whether μ is subtracted.
        scale: what σ is; None for σ = 1.
        on: what is normalized: the "input", the "weight" or "both".

    Raises:
        AnynormError: The scale is a covariance root, and the pattern has no channels to whiten.

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
    is_identity: bool = field(init=False, repr=False, compare=False)
    is_standard: bool = field(init=False, repr=False, compare=False)
    is_root_mean_square: bool = field(init=False, repr=False, compare=False)
    is_norm: bool = field(init=False, repr=False, compare=False)
    whitens: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scale, plain = self.scale, not self.center
        answers = {
            "is_identity": plain and scale is None,
            "is_standard": self.center and scale is not None and scale.is_standard_deviation,
            "is_root_mean_square": plain and scale == SCALES["rms"],
            "is_norm": plain and scale == SCALES["norm"],
            "whitens": scale is not None and scale.root is not None,
        }
        for name, answer in answers.items():
            object.__setattr__(self, name, answer)
        if self.whitens and not any(p.name == "c" and not p.shared for p in self.pattern.parts):
            raise AnynormError(
                f"whitening mixes the channels of a group, and pattern '{self.pattern}' has no "
                "unbracketed axis 'c'. Try '[n] (g c) [...]'."
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
    ) -> Spec:
        """Build a specification from a pattern's text and a scale's name.

        Args:
            pattern: the pattern, or its text.
            center: whether μ is subtracted.
            scale: what σ is: a key of ``SCALES``, a :class:`Scale`, or None for σ = 1.
            p, constant: values that replace those of the scale.
            on: what is normalized: the "input", the "weight" or "both".

        Returns:
            The specification.

        Raises:
            PatternError: The pattern cannot be read.
            UnknownNameError: There is no scale of that name.
            AnynormError: The scale is of another type, or does not fit the pattern.
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
        )

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
        return self.on == "input" and named and self._keeps_units

    @property
    def invariances(self) -> Invariances:
        """The changes of weights and data that leave the output as it is (ε aside)."""
        on_input, scaled = self.on != "weight", self.scale is not None
        centered = self.center and (self.scale is None or self.scale.origin == "mean")
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
