"""Keep one of the cut channels of a layer, with γ = 0: its constant stands for those of all.

A layer that pads its input with zeros sees less of a constant at the borders, so that no bias gives
its part.  A channel that stays gives it: if its constant is c and its weights become
Σ (cᵢ / c) Wᵢ over the cut channels and itself, every tap sees what it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from anynorm.surgery.channels import Channels, Use
from anynorm.surgery.graph import Graph
from anynorm.surgery.prune.recorded import Constant, among, input_constants, reading, reads
from anynorm.surgery.prune.taps import by_group, even, from_taps, taps_of

__all__ = ["ROUNDING", "Strength", "carry", "strengths"]

# Constants that differ by less, relative to the largest, are the same.
ROUNDING = 1e-5
# In how many places a channel's constant is not 0, and the sum of |constant| there.
Strength = tuple[int, float]


def strengths(graph: Graph, channels: Channels, state: Mapping[str, Tensor]) -> dict[int, Strength]:
    """How well each channel, with γ = 0, can stand for others where a bias cannot."""
    found: dict[int, Strength] = {}
    layers = [uses for uses in reading(channels) if not all(map(even, uses))]
    # In two halves: a gate that all channels feed varies only while some of them do.
    for half in (channels.prunable[::2], channels.prunable[1::2]) if layers else ():
        constants = input_constants(graph, channels, state, half)
        for uses in layers:
            values, widths = (part.cpu() for part in _joint(uses, constants))
            labels = by_group(uses[0], channels.sites[reads(uses[0])])
            able = among(labels, half) & (values != 0) & (widths <= ROUNDING * values.abs())
            sizes = values[able].abs().tolist()
            for root, size in zip(labels[able].tolist(), sizes, strict=True):
                count, total = found.get(root, (0, 0.0))
                found[root] = count + 1, total + size
    return found


def carry(
    uses: Sequence[Use],
    weight: Tensor,
    constants: Mapping[Node, Constant],
    gone: Tensor,
    kept: Tensor,
) -> Tensor:
    """Add the weights of inputs that are `gone` to one that is `kept`, in each group.

    Args:
        uses: the uses of one weight.
        weight: that weight, which is changed.
        constants: the constants of the inputs of each use.
        gone, kept: which inputs are cut, and which can stand for them: (groups, inputs).

    Returns:
        The inputs that are gone and left to the bias: nothing can stand for them everywhere, or the
        bias is exact too.
    """
    if all(map(even, uses)) or not kept.any():
        return gone
    values, widths = _joint(uses, constants)
    bound = ROUNDING * (values.abs() * (gone | kept)).amax(1, keepdim=True)
    steady = widths <= bound
    at = (values.abs() * (kept & steady)).argmax(1, keepdim=True)
    own = values.gather(1, at)
    able = (kept & steady).gather(1, at) & (own.abs() > bound)
    carried = gone & steady & able & (values != 0)
    factors = torch.where(carried, values / own, 0.0)
    taps = taps_of(uses[0], weight.detach().double()).clone()
    sums = torch.einsum("gi,giot->got", factors, taps)
    taps[torch.arange(len(at), device=at.device), at[:, 0]] += sums
    weight.copy_(from_taps(uses[0], taps, weight.shape))
    return gone & ~carried


def _joint(uses: Sequence[Use], constants: Mapping[Node, Constant]) -> tuple[Tensor, Tensor]:
    """The constant of each input, and how far it varies in and between uses: (groups, inputs)."""
    means = torch.stack([by_group(use, constants[use.node].mean) for use in uses])
    spreads = torch.stack([by_group(use, constants[use.node].spread) for use in uses])
    return means[0], torch.maximum(spreads, (means - means[0]).abs()).amax(0)
