"""Calls of layers that are not those of a plain tensor alone, and layers as leaves of torch.fx."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

from anynorm import functional as F

__all__ = ["entered"]


def entered(layer: torch.nn.Module, x: Any, residual: Any = None, mask: Any = None) -> Any:
    """Look at a call with more than one plain tensor; raise `AnynormError` if the input is none.

    A call by torch.fx becomes one node of its graph, as for torch.nn's layers, and its proxy, which
    stands for a tensor, is returned.  Otherwise the layer goes on.  Layers ask only where the type
    of their input is not `Tensor` itself, or where a residual or mask is given.

    >>> from anynorm import BatchNorm1d
    >>> model = torch.nn.Sequential(BatchNorm1d(3))
    >>> [node.op for node in torch.fx.symbolic_trace(model).graph.nodes]
    ['placeholder', 'call_module', 'output']
    """
    for given in (x, residual, mask):
        if isinstance(given, Proxy):
            return _leaf(given.tracer, layer, x, residual, mask)
    if not isinstance(x, Tensor):
        F.need_tensor(type(layer).__name__, "input", x)
    return None


def _leaf(tracer: Any, layer: torch.nn.Module, x: Any, residual: Any, mask: Any) -> Any:
    inputs = (x,) if residual is None else (x, residual)
    named = {} if mask is None else {"mask": mask}
    return tracer.create_proxy("call_module", tracer.path_of_module(layer), inputs, named)
