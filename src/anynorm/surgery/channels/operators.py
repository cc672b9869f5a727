"""An operator of the graph, with labels in the place of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_map_only

from anynorm.surgery.channels.labels import Labels, Number, narrowed, uniform

__all__ = ["Operator", "Parameter", "lock", "operator_name", "tensors_in", "unknown"]


def operator_name(node: Node) -> str:
    """The name of the operator that `node` calls, such as conv2d."""
    return str(node.target).removeprefix("aten.").partition(".")[0]


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer as the argument of an operator."""

    name: str
    shape: torch.Size


@dataclass(frozen=True)
class Operator:
    """An operator of the graph, with its arguments as labels and `Parameter`s.

    `module` runs it, and has the whole numbers `numbers` in its attributes.
    """

    node: Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Labels
    module: str
    numbers: Mapping[str, int]

    @property
    def name(self) -> str:
        """The operator's name, such as conv2d."""
        return operator_name(self.node)

    def arg(self, index: int, default: Any = None) -> Any:
        """The argument at `index`, by position or by the name that the schema gives it."""
        if index < len(self.args):
            return self.args[index]
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        named = self.kwargs.get(schema[index].name) if index < len(schema) else None
        return default if named is None else named

    def tensor(self, value: Any) -> Tensor:
        """The labels of an argument; those of a parameter lie along its only long axis."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Parameter):
            return self._labelled(value)
        return torch.zeros((), dtype=torch.int64)

    def _labelled(self, parameter: Parameter) -> Tensor:
        labels = torch.zeros(parameter.shape, dtype=torch.int64)
        long = [axis for axis, size in enumerate(parameter.shape) if size > 1]
        if len(long) != 1:
            self.labels.keep(parameter.name, f"{self.name} takes all of '{parameter.name}'")
            return labels
        fresh = self.labels.fresh(parameter.shape[long[0]])
        self.labels.at(parameter.name, long[0], fresh)
        return fresh.reshape(parameter.shape)

    def vector(self, labels: Tensor, axis: int) -> Tensor:
        """Labels along one axis; what lies at one place of it alone is one channel from now on.

        Channels that lie at several places of it, along other axes, are locked, and the labels 0.
        """
        others = [other for other in range(labels.dim()) if other != axis % labels.dim()]
        if not uniform(labels, others) and not self._gathered(labels, axis):
            self.lock(labels)
            return torch.zeros(labels.shape[axis], dtype=torch.int64)
        for other in reversed(others):
            labels = labels.select(other, 0)
        return labels

    def _gathered(self, labels: Tensor, axis: int) -> bool:
        """Unite what lies at each place of an axis; False where that would unite places."""
        rows = narrowed(labels, axis).movedim(axis, 0).flatten(1)
        places = torch.arange(len(rows))[:, None].expand_as(rows)
        at = torch.stack([self.labels.roots(rows), places], -1).flatten(0, 1).unique(dim=0)
        at = at[at[:, 0] != 0]
        if len(at) > len(at[:, 0].unique()):
            return False
        self.lock(rows[(rows == 0).any(1)], f"{self.name} with values that are not cut")
        self.labels.unite(rows, rows[:, :1])
        return True

    def along(self, vector: Tensor, axis: int) -> Tensor:
        """The output's labels, which are those of `vector` along `axis`."""
        shape = [1] * len(self.shape)
        shape[axis] = -1
        return vector.reshape(shape).expand(self.shape)

    def count(self, labels: Tensor, axis: int) -> bool:
        """Note which attributes of the module have the size of an axis; False if none has."""
        names = [name for name, number in self.numbers.items() if number == labels.shape[axis]]
        places = narrowed(labels, axis).movedim(axis, 0).flatten(1)
        self.labels.numbers += [Number(self.module, name, places) for name in names]
        return bool(names)

    @property
    def operands(self) -> list[Any]:
        """All labels and `Parameter`s among the arguments, in lists too."""
        return tensors_in([self.args, list(self.kwargs.values())])

    def lock(self, labels: Tensor, why: str = "") -> None:
        """Lock channels on account of this operator."""
        self.labels.lock(labels, why or f"{self.name} has no rule for them")

    def nothing(self) -> Any:
        """The labels of an output, or of several, without channels."""
        zero = torch.zeros((), dtype=torch.int64)
        return tree_map_only(Tensor, lambda t: zero.expand(t.shape), self.node.meta.get("val"))

    @property
    def shape(self) -> torch.Size:
        """The shape of the output."""
        shape: torch.Size = self.node.meta["val"].shape
        return shape


def unknown(op: Operator) -> Any:
    """Lock all that goes in."""
    lock(op, f"{op.name} has no rule")
    return op.nothing()


def lock(op: Operator, why: str) -> None:
    """Lock all that goes in, for the reason given."""
    for operand in op.operands:
        op.lock(op.tensor(operand), why)


def tensors_in(values: Any) -> list[Any]:
    """All labels and `Parameter`s in lists of arguments."""
    if isinstance(values, (tuple, list)):
        return [inner for value in values for inner in tensors_in(value)]
    return [values] if isinstance(values, (Tensor, Parameter)) else []
