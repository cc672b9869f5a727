"""The normalizers that everybody knows, by name."""

from __future__ import annotations

from typing import Any

from anynorm.catalogue import entry
from anynorm.errors import AnynormError
from anynorm.reference.cosine import CosineLinear
from anynorm.reference.normalizer import Normalizer
from anynorm.spec import Spec

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm", "create"]

_LAST_AXES = ("c", "d", "h", "w")


class BatchNorm(Normalizer):
    """One μ and σ for each channel of (N, C, *), over samples and positions.

    Ioffe & Szegedy 2015, arXiv:1502.03167.

    >>> import numpy
    >>> layer = BatchNorm(2)
    >>> layer.forward(numpy.asarray([[1.0, 5.0], [3.0, 9.0]])).round(3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    >>> layer.running_mean.round(3).tolist()
    [0.2, 0.7]
    """

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(entry("batch").spec, channels, **options)


class InstanceNorm(Normalizer):
    """One μ and σ for each channel of each sample of (N, C, *), over positions.

    Ulyanov et al. 2016, arXiv:1607.08022.
    """

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(entry("instance").spec, channels, **options)


class GroupNorm(Normalizer):
    """One μ and σ for each of `groups` groups of channels of each sample of (N, C, *).

    Wu & He 2018, arXiv:1803.08494.  Raises `ShapeError` if groups do not divide the channels.
    """

    def __init__(self, groups: int, channels: int, **options: Any) -> None:
        super().__init__(entry("group").spec, channels, sizes={"g": groups}, **options)


class LayerNorm(Normalizer):
    """One μ and σ for each sample, over the last axes, whose shape is `channels`.

    Ba et al. 2016, arXiv:1607.06450.

    >>> import numpy
    >>> layer = LayerNorm((2, 3))
    >>> layer.forward(numpy.ones((5, 4, 2, 3))).shape
    (5, 4, 2, 3)
    """

    def __init__(self, channels: int | tuple[int, ...], **options: Any) -> None:
        super().__init__(Spec.of(_over_last_axes(channels)), channels, **options)


class RMSNorm(Normalizer):
    """Layer norm without μ: σ is the root mean square over the last axes.

    Zhang & Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, channels: int | tuple[int, ...], **options: Any) -> None:
        spec = Spec.of(_over_last_axes(channels), center=False, scale="rms")
        super().__init__(spec, channels, **options)


def create(
    name: str,
    channels: int | tuple[int, ...],
    *,
    eps: float | None = None,
    momentum: float | None = 0.1,
    activation: str | None = None,
    **options: Any,
) -> Normalizer | CosineLinear:
    """Build the reference of any catalogue entry; `options` are the entry's own.

    Layer and RMS norm are those for (N, C, *): over the channels and all positions of a sample.
    "cosine" is a layer from `channels` inputs to ``outputs=``.  Raises `UnknownNameError` for
    a name or an option that does not exist.

    >>> create("group", 8, groups=2).gamma.shape
    (8,)
    """
    found = entry(name)
    eps = found.eps if eps is None else eps
    if found.spec.on == "both":
        return _cosine(channels, eps, **options)
    spec, sizes = found.tune(channels_first=True, **options)
    return Normalizer(
        spec, channels, eps=eps, sizes=sizes, momentum=momentum, activation=activation
    )


def _cosine(channels: Any, eps: float, outputs: int | None = None, **options: Any) -> CosineLinear:
    if outputs is None or not isinstance(channels, int):
        raise AnynormError(
            "'cosine' normalizes a layer's weights and its input together. "
            "Give both sizes: create('cosine', inputs, outputs=10)."
        )
    return CosineLinear(channels, outputs, eps=eps, **options)


def _over_last_axes(channels: int | tuple[int, ...]) -> str:
    count = 1 if isinstance(channels, int) else len(channels)
    if not 1 <= count <= len(_LAST_AXES):
        raise AnynormError(
            f"{channels} names {count} axes: give the sizes of the last 1 to {len(_LAST_AXES)}."
        )
    return f"... [{' '.join(_LAST_AXES[:count])}]"
