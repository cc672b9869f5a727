"""Every named normalizer: one row each, read by layers, reference, study and documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from anynorm.errors import AnynormError, UnknownNameError
from anynorm.pattern import Pattern
from anynorm.spec import Dialect, Invariances, Learned, Renorm, Spec

__all__ = ["Entry", "catalogue", "entry"]


@dataclass(frozen=True)
class Entry:
    """A named specification with its source.

    Args:
        name: the name.
        spec: the specification.
        summary: what it does, in a few words.
        paper: the source, with its arXiv number.
        twin: the torch.nn class that it equals.
        eps: ε in σ = √(s² + ε), by default.
        sizes: by the name of an option of :func:`anynorm.create` the part of the pattern that it
            gives the size of, with its default.
        tunable: the names of the options that change constants of the specification itself.
        channels_first: the specification to use instead where the channels are axis 1 of an input
            with positions, (N, C, *).

    Example:
        >>> row = catalogue["group"]
        >>> row.twin, row.options, row.paper
        ('GroupNorm', ('groups',), 'Wu & He 2018, arXiv:1803.08494')
    """

    name: str
    spec: Spec
    summary: str
    paper: str
    twin: str = ""
    eps: float = 1e-5
    sizes: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    tunable: tuple[str, ...] = ()
    channels_first: Spec | None = None

    @property
    def invariances(self) -> Invariances:
        """See :class:`anynorm.spec.Invariances`."""
        return self.spec.invariances

    @property
    def state(self) -> str:
        """The names of the running statistics, empty where there are none."""
        if not self.spec.uses_batch:
            return ""
        return "running_mean, " + ("running_cov" if self.spec.whitens else "running_var")

    @property
    def options(self) -> tuple[str, ...]:
        """The options of :func:`anynorm.create` that only this normalizer takes."""
        return (*self.sizes, *self.tunable)

    def tune(self, *, channels_first: bool = False, **options: int | float | str) -> Tuned:
        """Return the specification and the sizes of split axes that options ask for.

        Args:
            channels_first: whether the input is (N, C, *).
            options: those of this normalizer, as in ``groups=8``.

        Returns:
            The specification and the sizes.

        Raises:
            UnknownNameError: This normalizer does not have an option of that name.
            AnynormError: A size is no positive whole number.
        """
        sizes = dict(self.sizes.values())
        changes: dict[str, Any] = {}
        for option, value in options.items():
            if option in self.sizes:
                sizes[self.sizes[option][0]] = _positive(option, value)
            elif option in self.tunable:
                changes[option] = value
            else:
                raise UnknownNameError(f"option of '{self.name}'", option, self.options)
        spec = self.channels_first if channels_first and self.channels_first else self.spec
        return Tuned(spec.tuned(**changes) if changes else spec, sizes)


class Tuned(NamedTuple):
    """What an entry and the user's options come to."""

    spec: Spec
    sizes: dict[str, int]


def _positive(option: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise AnynormError(f"{option}={value!r}: give a positive whole number.")
    return value


def _within(spec: Spec) -> Spec:
    """The same over the channels and all positions of each sample (N, C, *)."""
    return replace(spec, pattern=Pattern.parse("n [c ...]"))


_LAST = Spec.of("... [c]")
_RMS = Spec.of("... [c]", center=False, scale="rms")
_SCALE = Spec.of(
    "... [c]",
    center=False,
    scale="norm",
    learned=Learned("scalar", start="root"),
    dialect=Dialect(eps="max"),
)
_GEMMA = replace(_RMS, learned=Learned(offset=1.0), dialect=Dialect(statistics="float32"))
_LLAMA = replace(_RMS, dialect=Dialect(statistics="float32", cast="before"))

_ENTRIES = (
    Entry(
        "none",
        Spec.of("n c ...", center=False, scale=None),
        "no normalization: the identity, for comparison",
        "-",
        twin="Identity",
    ),
    Entry(
        "batch",
        Spec.of("[n] c [...]"),
        "one μ and σ for each channel over samples and positions",
        "Ioffe & Szegedy 2015, arXiv:1502.03167",
        twin="BatchNorm1d/2d/3d",
    ),
    Entry(
        "batch-per-activation",
        Spec.of("[n] ..."),
        "one μ and σ for each activation over samples only",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3",
    ),
    Entry(
        "layer",
        _LAST,
        "one μ and σ for each sample over its features",
        "Ba et al. 2016, arXiv:1607.06450",
        twin="LayerNorm",
        channels_first=_within(_LAST),
    ),
    Entry(
        "layer-over-channels",
        Spec.of("n [c] ..."),
        "one μ and σ for each position over its channels, as in ConvNeXt",
        "Liu et al. 2022, arXiv:2201.03545",
    ),
    Entry(
        "instance",
        Spec.of("n c [...]"),
        "one μ and σ for each channel of each sample",
        "Ulyanov et al. 2016, arXiv:1607.08022",
        twin="InstanceNorm1d/2d/3d",
    ),
    Entry(
        "group",
        Spec.of("n (g [c]) [...]"),
        "one μ and σ for each group of channels of each sample",
        "Wu & He 2018, arXiv:1803.08494",
        twin="GroupNorm",
        sizes={"groups": ("g", 32)},
    ),
    Entry(
        "rms",
        _RMS,
        "layer norm without μ: σ is the root mean square",
        "Zhang & Sennrich 2019, arXiv:1910.07467",
        twin="RMSNorm",
        channels_first=_within(_RMS),
    ),
    Entry(
        "filter-response",
        Spec.of("n c [...]", center=False, scale="rms", learned=Learned(bias=True)),
        "instance norm without μ, and with β; its thresholded unit (TLU) is left to the model",
        "Singh & Krishnan 2020, arXiv:1911.09737",
        eps=1e-6,
    ),
    Entry(
        "ghost",
        Spec.of("(k [n]) c [...]"),
        "batch norm over parts of the batch of a fixed size",
        "Hoffer et al. 2017, arXiv:1705.08741",
        sizes={"size": ("n", 32)},
    ),
    Entry(
        "l1-batch",
        Spec.of("[n] c [...]", scale="l1"),
        "batch norm with the mean absolute deviation times √(π/2)",
        "Hoffer et al. 2018, arXiv:1803.01814",
        tunable=("constant",),
    ),
    Entry(
        "lp-batch",
        Spec.of("[n] c [...]", scale="lp"),
        "batch norm with the average p-norm about zero, p = 2 by default",
        "Santurkar et al. 2018, arXiv:1805.11604",
        tunable=("p", "constant"),
    ),
    Entry(
        "linf-batch",
        Spec.of("[n] c [...]", scale="linf"),
        "batch norm with the largest deviation times 1/√(2 ln n)",
        "Hoffer et al. 2018, arXiv:1803.01814",
        tunable=("constant",),
    ),
    Entry(
        "weight",
        Spec.of("o [i ...]", center=False, scale="norm", on="weight"),
        "each unit's weights divided by their L2 norm",
        "Salimans & Kingma 2016, arXiv:1602.07868",
        twin="utils.parametrizations.weight_norm",
        eps=0.0,
    ),
    Entry(
        "weight-standardization",
        Spec.of("o [i ...]", on="weight"),
        "each unit's weights with mean 0 and deviation 1",
        "Qiao et al. 2019, arXiv:1903.10520",
    ),
    Entry(
        "cosine",
        Spec.of("[i ...]", center=False, scale="norm", on="both"),
        "the cosine of the angle between input and weights",
        "Luo et al. 2017, arXiv:1702.05870",
        eps=1e-12,
    ),
    Entry(
        "zca",
        Spec.of("[n] (g c) [...]", scale="zca"),
        "decorrelated batch norm: channels of a group whitened, axes kept",
        "Huang et al. 2018, arXiv:1804.08450",
        sizes={"groups": ("g", 1)},
    ),
    Entry(
        "pca",
        Spec.of("[n] (g c) [...]", scale="pca"),
        "channels of a group whitened along their principal axes",
        "Huang et al. 2018, arXiv:1804.08450",
        sizes={"groups": ("g", 1)},
    ),
    Entry(
        "pixel",
        Spec.of("n [c] ...", center=False, scale="rms", learned=Learned("none")),
        "each position divided by the root mean square of its channels, without γ and β",
        "Karras et al. 2018, arXiv:1710.10196",
        eps=1e-8,
    ),
    Entry(
        "scale",
        _SCALE,
        "ScaleNorm: γ · x / max(‖x‖, ε) over the last axis, with one γ for all channels",
        "Nguyen & Salazar 2019, arXiv:1910.05895",
        channels_first=_within(_SCALE),
    ),
    Entry(
        "gemma-rms",
        _GEMMA,
        "RMS norm with γ = 1 + w; in 16 bits the result is rounded once, after γ",
        "Gemma Team 2024, arXiv:2403.08295",
        eps=1e-6,
        channels_first=_within(_GEMMA),
    ),
    Entry(
        "llama-rms",
        _LLAMA,
        "RMS norm; in 16 bits the result is rounded before γ, and again after it",
        "Touvron et al. 2023, arXiv:2302.13971",
        eps=1e-6,
        channels_first=_within(_LLAMA),
    ),
    Entry(
        "batch-renorm",
        Spec.of("[n] c [...]", source=Renorm()),
        "batch norm whose training is corrected towards the running statistics by r and d",
        "Ioffe 2017, arXiv:1702.03275",
        tunable=("r_max", "d_max"),
    ),
)

catalogue: Mapping[str, Entry] = MappingProxyType({row.name: row for row in _ENTRIES})


def entry(name: str) -> Entry:
    """Look a normalizer up by name.

    Args:
        name: the name.

    Returns:
        Its row of the catalogue.

    Raises:
        UnknownNameError: There is no normalizer of that name; the nearest is suggested.

    Example:
        >>> entry("batch").spec.pattern.text
        '[n] c [...]'
    """
    if not isinstance(name, str) or name not in catalogue:
        raise UnknownNameError("normalizer", name, catalogue)
    return catalogue[name]
