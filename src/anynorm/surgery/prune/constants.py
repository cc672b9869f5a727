"""Add constants to the outputs of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anynorm.surgery.bias import add_bias
from anynorm.surgery.channels import Use
from anynorm.surgery.graph import Graph
from anynorm.surgery.receipt import Log

__all__ = ["Constants"]

_NORMS = (torch.ops.aten.batch_norm.default, torch.ops.aten.instance_norm.default)


class Constants:
    """Adds constants to the outputs of layers: to the running mean behind them, or to their bias.

    `biases` are the layers that got a new bias for it.
    """

    def __init__(self, model: nn.Module, graph: Graph, log: Log) -> None:
        self._model, self._graph, self._log = model, graph, log
        self.biases: list[str] = []

    @torch.no_grad()
    def add(self, uses: Sequence[Use], shift: Tensor) -> None:
        """Add `shift` to the outputs of the layer with these uses."""
        means = [_mean_behind(self._graph, use) for use in uses]
        if None not in means:
            for name in dict.fromkeys(means):
                self._model.get_buffer(str(name)).sub_(shift)
        elif (bias := self._bias(uses[0])) is not None:
            bias.add_(shift)

    def _bias(self, use: Use) -> Tensor | None:
        """The bias of a layer; a new one if it has none but can have one."""
        if use.bias is not None:
            return self._model.get_parameter(use.bias)
        layer = self._graph.module_of(use.node)
        module = self._model.get_submodule(layer)
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            self._log.refuse(layer, "the constants of cut channels are lost: it takes no bias")
            return None
        self.biases.append(layer)
        return add_bias(module)


def _mean_behind(graph: Graph, use: Use) -> str | None:
    """The running mean of the batch norm that is the only user of the output, if there is one."""
    users = list(use.node.users)
    if len(users) != 1 or users[0].target not in _NORMS:
        return None
    return graph.state(users[0].args[3])
