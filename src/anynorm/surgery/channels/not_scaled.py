"""Which channels of a value were not scaled by the γ of a normalizer since a layer made them.

The γ of a normalizer says how large a channel is for what reads it behind the normalizer.  A layer
that reads the same values in front of it may need them, however small that γ is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from anynorm.surgery.channels.labels import Labels
from anynorm.surgery.channels.operators import operator_name
from anynorm.surgery.folding.passthrough_ops import named_argument
from anynorm.surgery.graph import Graph

__all__ = ["not_scaled"]

_NONE = torch.zeros(0, dtype=torch.int64)
_DENSE = ("linear", "addmm", "conv")  # how the names of operators with a weight begin
_NORMS = ("batch_norm", "instance_norm", "_native_batch_norm_legit_no_training")
_PRODUCTS = ("mul", "div")


def not_scaled(
    graph: Graph,
    node: Node,
    values: Mapping[Node, Any],
    before: Mapping[Node, Tensor],
    labels: Labels,
) -> Tensor:
    """Return the labels of a value that no γ has scaled; note those that a layer reads.

    Args:
        graph: the graph.
        node: the operator that gives the value.
        values: the labels of each value, also of that of `node`.
        before: the result for the values before.
        labels: the channels of the model.
    """
    incoming = [before[one] for one in node.all_input_nodes if graph.is_data(one)]
    if node.op != "call_function" or not incoming:
        return _NONE
    name = operator_name(node).rstrip("_")
    if name.startswith(_DENSE) and not _depthwise(node):
        labels.need(incoming[0], f"{name} also reads it in front of the normalizer, without γ")
        return _unique(values[node])
    if name in _NORMS and graph.state(node.args[1]) is not None:
        return _NONE
    # A factor that is constant makes a product small: a gate times a channel without γ is not told.
    if name in _PRODUCTS and any(not len(one) for one in incoming):
        return _NONE
    united: Tensor = torch.cat(incoming).unique()
    return united


def _depthwise(node: Node) -> bool:
    """Whether each output of a convolution comes from one channel."""
    if not operator_name(node).startswith("conv"):
        return False
    groups = named_argument(node, "groups", 1)
    data, weight = (one.meta["val"] for one in node.args[:2])  # type: ignore[union-attr]
    channels = data.shape[1 if data.dim() == weight.dim() else 0]
    return bool(groups != 1 and channels == groups)


def _unique(value: Any) -> Tensor:
    found = [leaf.flatten() for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return torch.cat(found).unique() if found else _NONE
