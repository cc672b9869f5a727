"""The rules for linear layers and convolutions: their weights hold the channels of both sides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anynorm.surgery.channels.labels import Use, dense_arguments
from anynorm.surgery.channels.operators import Operator, Parameter, unknown

__all__ = ["addmm", "convolution", "linear", "transposed_convolution"]


def linear(op: Operator) -> Any:
    """A linear layer whose weight is (outputs, inputs)."""
    incoming = op.vector(op.tensor(op.arg(0)), -1)
    outgoing = _connected(op, incoming, op.shape[-1], 1, transposed=False)
    return op.along(outgoing, len(op.shape) - 1)


def addmm(op: Operator) -> Any:
    """A linear layer whose weight is (inputs, outputs)."""
    if op.kwargs:  # factors of the product and of the bias
        return unknown(op)
    incoming = op.vector(op.tensor(op.arg(1)), -1)
    return op.along(_connected(op, incoming, op.shape[-1], 1, transposed=True), 1)


def convolution(op: Operator, *, transposed: bool = False) -> Any:
    """A convolution over any number of axes, in groups or not."""
    x, groups = op.tensor(op.arg(0)), op.arg(6, 1)
    axis = x.dim() - _rank(op) - 1
    outgoing = _connected(op, op.vector(x, axis), op.shape[axis], groups, transposed)
    return op.along(outgoing, axis)


def _rank(op: Operator) -> int:
    """How many axes are positions: the digit of the operator's name."""
    return int(op.name.removesuffix("d")[-1])


def transposed_convolution(op: Operator) -> Any:
    """A transposed convolution, whose weight is (inputs, outputs of a group)."""
    return convolution(op, transposed=True)


def _connected(op: Operator, incoming: Tensor, count: int, groups: int, transposed: bool) -> Tensor:
    """The labels of `count` outputs of a layer whose weight connects them to the inputs."""
    _, weight, bias = map(op.arg, dense_arguments(op.node))
    if not isinstance(weight, Parameter):
        op.lock(incoming, f"{op.name} with a weight that is computed")
        return torch.zeros(count, dtype=torch.int64)
    name = bias.name if isinstance(bias, Parameter) else None
    op.labels.uses.append(Use(op.node, weight.name, name, groups, transposed))
    connect = _depthwise if groups == len(incoming) > 1 else _dense
    outgoing = connect(op, weight, incoming, count, groups, transposed)
    if isinstance(bias, Parameter):
        op.labels.at(bias.name, 0, outgoing)
    elif bias is not None:
        op.lock(outgoing, f"{op.name} with a bias that is computed")
    return outgoing


def _depthwise(
    op: Operator, weight: Parameter, incoming: Tensor, count: int, groups: int, transposed: bool
) -> Tensor:
    """One input for each group: outputs are of the channel that they come from."""
    outgoing = incoming.repeat_interleave(count // groups)
    op.labels.at(weight.name, 0, incoming if transposed else outgoing)
    return outgoing


def _dense(
    op: Operator, weight: Parameter, incoming: Tensor, count: int, groups: int, transposed: bool
) -> Tensor:
    """Every input of a group to every output: all groups lose the same places."""
    outgoing = op.labels.fresh(count)
    for labels in (incoming, outgoing):
        rows = labels.reshape(groups, -1)
        op.lock(rows[:, (rows == 0).any(0)], f"{op.name} in groups with values that are not cut")
        op.labels.unite(rows, rows[:1])
    first = [labels.reshape(groups, -1)[0] for labels in (incoming, outgoing)]
    op.labels.at(weight.name, 0, incoming if transposed else outgoing, reads=transposed)
    op.labels.at(weight.name, 1, first[1 if transposed else 0], reads=not transposed)
    return outgoing
