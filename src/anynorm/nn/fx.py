"""Layers as leaves of torch.fx: `symbolic_trace` takes only torch.nn's own for such."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

__all__ = ["Proxy", "leaf", "traced"]


def traced(x: Any, residual: Any, mask: Any) -> bool:
    """Whether a layer is called by torch.fx, with any of these to stand for a tensor."""
    return isinstance(x, Proxy) or isinstance(residual, Proxy) or isinstance(mask, Proxy)


def leaf(layer: torch.nn.Module, x: Any, residual: Any = None, mask: Any = None) -> Tensor:
    """Record the call of `layer` as one node of the graph, as torch.fx does for torch.nn's layers.

    What it returns is a proxy, which stands for a tensor.

    >>> from anynorm import BatchNorm1d
    >>> model = torch.nn.Sequential(BatchNorm1d(3))
    >>> [node.op for node in torch.fx.symbolic_trace(model).graph.nodes]
    ['placeholder', 'call_module', 'output']
    """
    tracer: Any = next(given for given in (x, residual, mask) if isinstance(given, Proxy)).tracer
    inputs = (x,) if residual is None else (x, residual)
    named = {} if mask is None else {"mask": mask}
    node: Tensor = tracer.create_proxy("call_module", tracer.path_of_module(layer), inputs, named)
    return node
