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

    Args:
        channels: the number of channels.
        options: `eps`, `momentum` and `activation`, as for :class:`Normalizer`.

    Raises:
        ShapeError: An input does not have these channels, or, in training, has a single value for
            each μ and σ.
        UnknownNameError: There is no activation of that name.

    Example:
        >>> import numpy
        >>> layer = BatchNorm(2)
        >>> layer.forward(numpy.asarray([[1.0, 5.0], [3.0, 9.0]])).round(3).tolist()
        [[-1.0, -1.0], [1.0, 1.0]]
        >>> layer.running_mean.round(3).tolist()
        [0.2, 0.7]

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(entry("batch").spec, channels, **options)


class InstanceNorm(Normalizer):
    """One μ and σ for each channel of each sample of (N, C, *), over positions.

    Args:
        channels: the number of channels.
        options: `eps`, `momentum` and `activation`, as for :class:`Normalizer`.

    Raises:
        ShapeError: An input does not have these channels.
        UnknownNameError: There is no activation of that name.

    Example:
        >>> import numpy
        >>> InstanceNorm(1).forward(numpy.asarray([[[1.0, 3.0]]])).round(3).tolist()
        [[[-1.0, 1.0]]]

    Reference:
        Ulyanov et al. 2016, arXiv:1607.08022.
    """

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(entry("instance").spec, channels, **options)


class GroupNorm(Normalizer):
    """One μ and σ for each group of channels of each sample of (N, C, *).

    Args:
        groups: the number of groups.
        channels: the number of channels.
        options: `eps`, `momentum` and `activation`, as for :class:`Normalizer`.

    Raises:
        ShapeError: At a call: the groups do not divide the channels, or the input does not have
            these channels.
        UnknownNameError: There is no activation of that name.

    Example:
        >>> import numpy
        >>> GroupNorm(2, 4).forward(numpy.asarray([[1.0, 3.0, 10.0, 30.0]])).round(3).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]

    Reference:
        Wu & He 2018, arXiv:1803.08494.
    """

    def __init__(self, groups: int, channels: int, **options: Any) -> None:
        super().__init__(entry("group").spec, channels, sizes={"g": groups}, **options)


class LayerNorm(Normalizer):
    """One μ and σ for each sample, over the last axes.

    Args:
        channels: the shape of the last axes.
        options: `eps`, `momentum` and `activation`, as for :class:`Normalizer`.

    Raises:
        ShapeError: An input does not end in `channels`.
        AnynormError: `channels` names no axis, or more than 4.
        UnknownNameError: There is no activation of that name.

    Example:
        >>> import numpy
        >>> layer = LayerNorm((2, 3))
        >>> layer.forward(numpy.ones((5, 4, 2, 3))).shape
        (5, 4, 2, 3)

    Reference:
        Ba et al. 2016, arXiv:1607.06450.
    """

    def __init__(self, channels: int | tuple[int, ...], **options: Any) -> None:
        super().__init__(Spec.of(_over_last_axes(channels)), channels, **options)


class RMSNorm(Normalizer):
    """Layer norm without μ: σ is the root mean square over the last axes.

    Args:
        channels: the shape of the last axes.
        options: `eps`, `momentum` and `activation`, as for :class:`Normalizer`.

    Raises:
        ShapeError: An input does not end in `channels`.
        AnynormError: `channels` names no axis, or more than 4.
        UnknownNameError: There is no activation of that name.

    Example:
        >>> import numpy
        >>> RMSNorm(2).forward(numpy.asarray([[3.0, 4.0]])).round(4).tolist()
        [[0.8485, 1.1314]]

    Reference:
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
    """Build the reference of any catalogue entry.

    Layer and RMS norm are those for (N, C, *): over the channels and all positions of a sample.
    "cosine" is a layer from `channels` inputs to ``outputs=``.

    Args:
        name: the name of the entry.
        channels: the number of channels, or the shape of γ and β.
        eps: ε in σ = √(s² + ε); None for the catalogue's.
        momentum, activation: as for :class:`Normalizer`.
        options: the entry's own, as in ``groups=8``.

    Returns:
        The reference, forward and backward.

    Raises:
        UnknownNameError: There is no name or option like that.
        AnynormError: "cosine" is not given both its sizes.

    Example:
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
