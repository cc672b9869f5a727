"""Follow every channel through a model's graph."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from anynorm.surgery.channels.labels import Labels, Number, Use
from anynorm.surgery.channels.not_scaled import not_scaled
from anynorm.surgery.channels.operators import Operator, Parameter, lock, unknown
from anynorm.surgery.channels.rules import RULES
from anynorm.surgery.graph import Graph

__all__ = ["Channels", "Use", "analyse"]


@dataclass(frozen=True)
class Channels:
    """The places of each channel of a model in its parameters and buffers.

    `sites` gives, for an axis of a parameter or buffer, the channel of each index (0 for none);
    `readers` are those that multiply what comes from the channel.  `scales` are the γ of the
    normalizers that scale channels, `locked` the channels that cannot be cut, with reasons,
    `needed` those that are kept because a layer reads them without a γ, and `uses` the linear
    layers and convolutions.  `numbers` are attributes of modules that count channels.
    """

    sites: dict[tuple[str, int], Tensor]
    readers: frozenset[tuple[str, int]]
    scales: tuple[str, ...]
    locked: dict[int, str]
    uses: tuple[Use, ...]
    needed: dict[int, str] = field(default_factory=dict)
    numbers: tuple[Number, ...] = ()

    @cached_property
    def prunable(self) -> list[int]:
        """The channels that have a γ and may be cut, with those that are `needed`."""
        scaled = [self.sites[name, 0] for name in self.scales]
        found = torch.cat(scaled).unique().tolist() if scaled else []
        return [channel for channel in found if channel and channel not in self.locked]

    @cached_property
    def read(self) -> list[int]:
        """The channels that layers read and that may be cut, with or without a γ."""
        found = {root for site in self.readers for root in self.sites[site].tolist()}
        return sorted(root for root in found if root and root not in self.locked)

    @cached_property
    def places(self) -> dict[int, int]:
        """How many places of an axis each channel takes at least: a head of attention several."""
        found: dict[int, int] = {}
        for labels in self.sites.values():
            roots, counts = labels.unique(return_counts=True)
            for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
                found[root] = min(found.get(root, count), count)
        return found

    def made_by(self, use: Use) -> Tensor:
        """The channel of each output of a layer, 0 for none."""
        count = use.shape[1] * use.groups if use.transposed else use.shape[0]
        found = self.sites.get((use.weight, int(use.transposed)))
        if found is None:
            return torch.zeros(count, dtype=torch.int64)
        return found.repeat(count // len(found))  # the same for each group of a transposed layer

    def reasons(self, channels: Tensor) -> list[str]:
        """Why some of the channels cannot be cut; empty if all can."""
        why = {**self.needed, **self.locked}
        found = [why.get(label, "" if label else _FIXED) for label in channels.unique().tolist()]
        return list(dict.fromkeys(reason for reason in found if reason))


_FIXED = "its channels come from outside or from an operator without a rule"


def analyse(graph: Graph) -> Channels:
    """Label every tensor of the graph, and return the channels.

    >>> from torch import nn
    >>> from anynorm.surgery.graph import capture
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> found = analyse(capture(model, torch.zeros(1, 3, 8, 8)))
    >>> found.scales, len(found.prunable)
    (('1.weight',), 4)
    >>> found.sites["0.weight", 0].equal(found.sites["3.weight", 1])
    True
    """
    labels = Labels()
    values: dict[Node, Any] = {}
    raw: dict[Node, Tensor] = {}
    for node in graph.nodes.nodes:
        values[node] = _value(graph, node, values, labels)
        raw[node] = not_scaled(graph, node, values, raw, labels)
    labels.settle()
    return Channels(
        sites={site: labels.roots(found) for site, found in labels.sites.items()},
        readers=frozenset(labels.readers),
        scales=tuple(dict.fromkeys(labels.scales)),
        locked=labels.reasons(),
        uses=tuple(labels.uses),
        needed=labels.needed,
        numbers=tuple(replace(one, places=labels.roots(one.places)) for one in labels.numbers),
    )


def _value(graph: Graph, node: Node, values: dict[Node, Any], labels: Labels) -> Any:
    if name := graph.state(node):
        return Parameter(name, node.meta["val"].shape)
    args, kwargs = (cast("Any", map_arg(a, values.__getitem__)) for a in (node.args, node.kwargs))
    module = graph.module_of(node)
    op = Operator(node, args, kwargs, labels, module, graph.numbers.get(module, {}))
    if node.op == "output":
        return lock(op, "it is part of the output")
    if not all(map(_sized, (node, *node.all_input_nodes))):
        lock(op, f"the shape of what {op.name} gives or takes depends on values")
        return op.nothing() if _sized(node) else torch.zeros((), dtype=torch.int64)
    if node.target is operator.getitem:
        return args[0][args[1]]
    if node.op != "call_function" or not op.operands:
        return op.nothing()
    rule = RULES.get(op.name) or RULES.get(op.name.rstrip("_"), unknown)
    return rule(op)


def _sized(node: Node) -> bool:
    """Whether the shape is known and does not depend on values of the example."""
    tensors = [leaf for leaf in tree_leaves(node.meta.get("val")) if isinstance(leaf, Tensor)]
    return all(isinstance(size, int) for tensor in tensors for size in tensor.shape)
