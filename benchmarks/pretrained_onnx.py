"""An ONNX graph as a torch module with torch's batch norms: operators of classifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anynorm.errors import AnynormError

__all__ = ["Graph"]


class Graph(nn.Module):
    """Runs the nodes of an ONNX file in their order; the first input is the batch.

    The file gives batch norm no count of batches, so the layers are as after a load of the
    statistics alone.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnx  # type: ignore[import-not-found]

        graph = onnx.load(str(path)).graph
        self.constants = {t.name: _tensor(t) for t in graph.initializer}
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        for node in graph.node:
            given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self.constants[node.output[0]] = _tensor(given["value"])
            else:
                self.nodes.append((node.op_type, list(node.input), node.output[0], given))
        known = {i.name for i in graph.input} - set(self.constants)
        self.input, self.output = next(iter(known)), graph.output[0].name
        self.norms = nn.ModuleDict({_key(node[2]): self._norm(node) for node in self._of_norms()})

    def _of_norms(self) -> list[tuple[str, list[str], str, dict[str, Any]]]:
        return [node for node in self.nodes if node[0] == "BatchNormalization"]

    def _norm(self, node: tuple[str, list[str], str, dict[str, Any]]) -> nn.BatchNorm2d:
        _, names, _, given = node
        weight, bias, mean, variance = (self.constants[name] for name in names[1:5])
        layer = nn.BatchNorm2d(len(weight), eps=given["epsilon"], momentum=1 - given["momentum"])
        layer.load_state_dict(
            {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance},
            strict=False,
        )
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """The output before a last softmax: scores, as a loss wants them."""
        values = {**self.constants, self.input: x}
        for kind, names, output, given in self.nodes:
            inputs = [values[name] for name in names]
            if kind == "BatchNormalization":
                values[output] = self.norms[_key(output)](inputs[0])
            elif kind in _OPERATORS:
                values[output] = _OPERATORS[kind](inputs, given)
            else:
                raise AnynormError(f"the operator {kind} is not among {sorted(_OPERATORS)}")
        return values[self.output]


def _key(name: str) -> str:
    return name.replace(".", "_")


def _tensor(given: Any) -> Tensor:
    from onnx import numpy_helper  # type: ignore[import-not-found]

    return torch.from_numpy(numpy_helper.to_array(given).copy())


def _convolution(inputs: list[Tensor], given: dict[str, Any]) -> Tensor:
    top, left, bottom, right = given["pads"]
    x = F.pad(inputs[0], (left, right, top, bottom))
    bias = inputs[2] if len(inputs) > 2 else None
    how = {"stride": given["strides"], "dilation": given["dilations"], "groups": given["group"]}
    return F.conv2d(x, inputs[1], bias, **how)


def _sliced(inputs: list[Tensor], _: dict[str, Any]) -> Tensor:
    x, starts, ends, axes = inputs[:4]
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        x = x.narrow(axis, start, min(end, x.shape[axis]) - start)
    return x


def _max_pool(inputs: list[Tensor], given: dict[str, Any]) -> Tensor:
    return F.max_pool2d(inputs[0], given["kernel_shape"], given["strides"])


_OPERATORS: dict[str, Callable[[list[Tensor], dict[str, Any]], Tensor]] = {
    "Add": lambda i, _: i[0] + i[1],
    "Cast": lambda i, _: i[0],  # between types of whole numbers only
    "Clip": lambda i, _: i[0].clamp(i[1], i[2]),
    "Concat": lambda i, given: torch.cat(i, given["axis"]),
    "Conv": _convolution,
    "Div": lambda i, _: i[0] / i[1],
    "GlobalAveragePool": lambda i, _: i[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda i, given: (given["alpha"] * i[0] + given["beta"]).clamp(0, 1),
    "Identity": lambda i, _: i[0],
    "MatMul": lambda i, _: i[0] @ i[1],
    "MaxPool": _max_pool,
    "Mul": lambda i, _: i[0] * i[1],
    "Relu": lambda i, _: i[0].relu(),
    "Reshape": lambda i, _: i[0].reshape(i[1].tolist()),
    "Shape": lambda i, _: torch.tensor(i[0].shape),
    "Slice": _sliced,
    "Softmax": lambda i, _: i[0],  # left out: the loss takes scores
}
