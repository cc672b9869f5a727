"""How an example reaches the layers: the number of axes, a residual, a mask."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.surgery.batches import Batch, Forward, call
from anynorm.surgery.call_args import mask_of
from anynorm.surgery.modes import evaluating

__all__ = ["Seen", "observe"]


@dataclass
class Seen:
    """The arguments with which a layer was called."""

    ranks: set[int] = field(default_factory=set)
    residual: bool = False
    mask: bool = False
    alone: bool = field(default=True, repr=False)  # every call had one tensor and nothing else
    first: Tensor | None = field(default=None, repr=False)  # on the meta device, without values

    @property
    def rank(self) -> int | None:
        """The number of axes of the input; None if it is not known or differs between calls."""
        return next(iter(self.ranks)) if len(self.ranks) == 1 else None

    @property
    def single(self) -> Tensor | None:
        """A tensor like the first input; None if a call had other arguments too."""
        return self.first if self.alone else None


def observe(
    model: nn.Module,
    layers: Iterable[nn.Module],
    example: Batch,
    forward: Forward | None = None,
    watcher: AbstractContextManager[object] | None = None,
) -> dict[nn.Module, Seen]:
    """Run `model` in eval mode on `example` and note the arguments of each of `layers`.

    `watcher` is active meanwhile.

    >>> norm = nn.BatchNorm1d(3)
    >>> observe(norm, [norm], torch.zeros(2, 3, 5))[norm]
    Seen(ranks={3}, residual=False, mask=False)
    """
    found = {layer: Seen() for layer in layers}

    def see(layer: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = [value for value in (*args, *keywords.values()) if isinstance(value, Tensor)]
        mask = mask_of(layer, args, keywords)
        seen = found[layer]
        if given and seen.first is None:
            seen.first = torch.empty(given[0].shape, dtype=given[0].dtype, device="meta")
        seen.alone &= len(args) + len(keywords) == len(given) == 1
        seen.ranks |= {tensor.dim() for tensor in given[:1]}
        seen.mask |= mask is not None
        seen.residual |= len(given) > 1 + (mask is not None)

    hooks = [layer.register_forward_pre_hook(see, with_kwargs=True) for layer in found]
    try:
        with evaluating(model), watcher or nullcontext():
            call(model, example, forward)
    finally:
        for hook in hooks:
            hook.remove()
    return found
