"""Keep one of the cut channels of a layer, with γ = 0: its constant stands for those of all.

A layer that pads its input with zeros sees less of a constant at the borders, so that no bias gives
its part.  A channel that stays gives it: if its constant is c and its weights become
Σ (cᵢ / c) Wᵢ over the cut channels and itself, every tap sees what it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from anynorm.surgery.channels import Channels, Use
from anynorm.surgery.graph import Graph
from anynorm.surgery.prune.recorded import Constant, input_constants, reads
from anynorm.surgery.prune.taps import by_group, even, from_taps, taps_of

__all__ = ["ROUNDING", "Strength", "carry", "strengths"]

# Constants that differ by less, relative to the largest, are the same.
ROUNDING = 1e-5
# In how many places a channel's constant is not 0, and the sum of |constant| there.
Strength = tuple[int, float]


def strengths(graph: Graph, channels: Channels, state: Mapping[str, Tensor]) -> dict[int, Strength]:
    """How well each channel, with γ = 0, can stand for others where a bias cannot."""
    found: dict[int, Strength] = {}
    uses = [use for use in channels.uses if reads(use) in channels.readers and not even(use)]
    # In two halves: a gate that all channels feed varies only while some of them do.
    for half in (channels.prunable[::2], channels.prunable[1::2]) if uses else ():
        silent, constants = set(half), input_constants(graph, channels, state, half)
        for use in uses:
            labels = channels.sites[reads(use)]
            mean, spread = constants[use.node]
            places = labels.repeat(len(mean) // len(labels)).tolist()
            values = zip(places, mean.abs().tolist(), spread.tolist(), strict=True)
            for root, value, width in values:
                if root in silent and value > 0 and width <= ROUNDING * value:
                    count, total = found.get(root, (0, 0.0))
                    found[root] = count + 1, total + value
    return found


def carry(
    uses: Sequence[Use],
    weight: Tensor,
    constants: Sequence[Constant],
    gone: Tensor,
    kept: Tensor,
) -> Tensor:
    """Add the weights of inputs that are `gone` to one that is `kept`, in each group.

    Args:
        uses: the uses of one weight.
        weight: that weight, which is changed.
        constants: the constants of the inputs at each use.
        gone, kept: which inputs are cut, and which can stand for them: (groups, inputs).

    Returns:
        The inputs that are gone and left to the bias: nothing can stand for them everywhere, or the
        bias is exact too.
    """
    if all(map(even, uses)) or not kept.any():
        return gone
    mean = torch.stack([by_group(use, one.mean) for use, one in zip(uses, constants, strict=True)])
    spread = torch.stack([by_group(u, one.spread) for u, one in zip(uses, constants, strict=True)])
    bound = ROUNDING * (mean.abs() * (gone | kept)).amax((0, 2))[:, None]
    steady = spread.amax(0) <= bound
    least = mean.abs().amin(0) * (kept & steady)
    at = least.argmax(1, keepdim=True)
    own = mean.gather(2, at.expand(len(mean), -1, -1))
    factors = mean[0] / own[0]
    same = (mean - factors * own).abs().amax(0) <= bound  # the same factors at each use
    carried = gone & steady & same & (least.gather(1, at) > bound)
    taps = taps_of(uses[0], weight.detach().double()).clone()
    sums = torch.einsum("gi,giot->got", torch.where(carried, factors, 0.0), taps)
    taps[torch.arange(len(at), device=at.device), at[:, 0]] += sums
    weight.copy_(from_taps(uses[0], taps, weight.shape))
    return gone & ~carried
