"""Digits with varied place, contrast, brightness and noise, as in photographs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CANVAS", "varied"]

CANVAS = 12
# Contrast is drawn from `_FAINTEST` to 1, brightness from −0.5 to 0.5; the digit's pixels have
# values from 0 to 1. The noise of every pixel has a standard deviation of 0.1.
_FAINTEST, _NOISE = 0.3, 0.1


def varied(images: Tensor, labels: Tensor, copies: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return `copies` of each image on a larger canvas, with place, contrast, brightness and noise.

    Images differ much in contrast and brightness, so the mean and the standard deviation of a few
    images say little about those of the next few: statistics of small batches are noisy, as with
    photographs.

    Args:
        images: values from 0 to 1.
        labels: one for each image.
        copies: how many images to make of each.
        seed: the seed of all random draws.

    Shape:
        images: (N, 1, H, W) with H and W up to 12. Returns (copies · N, 1, 12, 12) and
        (copies · N,).

    Example:
        >>> x, y = varied(torch.ones(3, 1, 8, 8), torch.arange(3), copies=2, seed=0)
        >>> x.shape, y.tolist()
        (torch.Size([6, 1, 12, 12]), [0, 1, 2, 0, 1, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    images, labels = images.repeat(copies, 1, 1, 1), labels.repeat(copies)
    count, _, height, width = images.shape

    def drawn() -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator)

    canvas = torch.zeros(count, 1, CANVAS, CANVAS)
    tops = torch.randint(CANVAS - height + 1, (count,), generator=generator)
    lefts = torch.randint(CANVAS - width + 1, (count,), generator=generator)
    for image, top, left, place in zip(images, tops, lefts, canvas, strict=True):
        place[:, top : top + height, left : left + width] = image
    canvas = canvas * (_FAINTEST + (1 - _FAINTEST) * drawn()) + drawn() - 0.5
    return canvas + _NOISE * torch.randn(canvas.shape, generator=generator), labels
