"""Labels: which channel each element of a tensor belongs to.

A label is a number; 0 is no channel.  Channels that can only be cut together are united, as in
union-find; a locked channel cannot be cut, for a reason that is kept.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

__all__ = ["Labels", "Number", "Use", "dense_arguments", "narrowed", "uniform", "varying"]


@dataclass(frozen=True)
class Use:
    """A linear layer or convolution: the operator, and the names of its weight and bias.

    It is `transposed` if the first axis of its weight has the inputs, as in a transposed
    convolution or a product with a matrix of (inputs, outputs).
    """

    node: Node
    weight: str
    bias: str | None
    groups: int
    transposed: bool

    @property
    def positions(self) -> int:
        """How often the whole weight is multiplied: multiply-adds over the weight's size."""
        node = self.x if self.transposed else self.node
        shape: torch.Size = node.meta["val"].shape
        return shape.numel() // shape[self.channel_axis]

    @property
    def x(self) -> Node:
        """The input."""
        found: Node = self.node.args[dense_arguments(self.node)[0]]  # type: ignore[assignment]
        return found

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight."""
        weight: Any = self.node.args[dense_arguments(self.node)[1]]
        found: torch.Size = weight.meta["val"].shape
        return found

    @property
    def channel_axis(self) -> int:
        """The axis of the input that has the channels."""
        return -1 if self.node.target is torch.ops.aten.linear.default else 1


def dense_arguments(node: Node) -> tuple[int, int, int]:
    """The places of input, weight and bias among the arguments of a layer's operator."""
    return (1, 2, 0) if node.target is torch.ops.aten.addmm.default else (0, 1, 2)


@dataclass(frozen=True)
class Number:
    """A whole number in a module's attributes that counts places: the labels of each place."""

    module: str
    attribute: str
    places: Tensor

    def left(self, cut: Collection[int]) -> int:
        """The number without the places of which all channels are cut."""
        gone = torch.isin(self.places, torch.tensor(sorted(cut), dtype=torch.int64)).all(1)
        return len(gone) - int(gone.sum())


class Labels:
    """The channels of a model, as they are found.

    >>> labels = Labels()
    >>> one, other = labels.fresh(3), labels.fresh(3)
    >>> labels.unite(one, other)
    >>> labels.lock(other[:1], "used by sort")
    >>> labels.roots(other).tolist(), labels.reasons()
    ([1, 2, 3], {1: 'used by sort'})
    """

    def __init__(self) -> None:
        self._parent = [0]
        self._locked: dict[int, str] = {}
        self._kept: dict[str, str] = {}
        self._needed: dict[int, str] = {}
        self.sites: dict[tuple[str, int], Tensor] = {}
        self.readers: set[tuple[str, int]] = set()
        self.scales: list[str] = []
        self.uses: list[Use] = []
        self.numbers: list[Number] = []
        self._splits: list[Tensor] = []

    def fresh(self, count: int) -> Tensor:
        """Return `count` new labels."""
        first = len(self._parent)
        self._parent += range(first, first + count)
        return torch.arange(first, first + count)

    def unite(self, one: Tensor, other: Tensor) -> None:
        """Make the channels of two tensors that broadcast the same, element by element."""
        one, other = torch.broadcast_tensors(one, other)
        both = (one != 0) & (other != 0) & (one != other)
        for a, b in torch.stack([one[both], other[both]], 1).unique(dim=0).tolist():
            low, high = sorted((self._find(a), self._find(b)))
            self._parent[high] = low

    def split(self, labels: Tensor) -> None:
        """Note that an axis of channels was split: what goes must go along one of the parts."""
        self._splits.append(labels)

    def settle(self) -> None:
        """Let every split that no operator has decided lose the same places of its last part.

        An operator that wants single channels on a part decides for that one: all values of a
        channel go together.
        """
        for labels in self._splits:
            axes, roots = varying(labels), self.roots(labels)
            decided = any(uniform(roots, [a for a in axes if a != axis]) for axis in axes)
            for axis in [] if decided else axes[:-1]:
                self.unite(labels, labels.narrow(axis, 0, 1))

    def lock(self, labels: Tensor, reason: str) -> None:
        """Keep channels from being cut."""
        for label in labels.unique().tolist():
            if label:
                self._locked.setdefault(label, reason)

    def need(self, labels: Tensor, reason: str) -> None:
        """Note that a layer reads channels whatever the γ of their normalizers is."""
        for label in labels.tolist():
            if label:
                self._needed.setdefault(label, reason)

    @property
    def needed(self) -> dict[int, str]:
        """The channels that a layer reads without a γ, and why each is kept."""
        found: dict[int, str] = {}
        for label, reason in self._needed.items():
            found.setdefault(self._find(label), reason)
        return found

    def at(self, name: str, axis: int, labels: Tensor, *, reads: bool = False) -> None:
        """Note that index i on `axis` of the parameter or buffer `name` is of channel labels[i].

        It `reads` the channel if it multiplies what comes from it, as a layer's input weights do.
        """
        known = self.sites.setdefault((name, axis), labels)
        self.unite(known, labels)
        self.lock(known[labels == 0], _SHARED.format(name))
        self.lock(labels[known == 0], _SHARED.format(name))
        if reads:
            self.readers.add((name, axis))

    def keep(self, name: str, reason: str) -> None:
        """Keep a parameter or buffer as it is: no axis of it may lose anything."""
        self._kept.setdefault(name, reason)

    def roots(self, labels: Tensor) -> Tensor:
        """Return each label's channel, by the smallest label united with it."""
        values, places = labels.unique(return_inverse=True)
        return torch.tensor([self._find(v) for v in values.tolist()], dtype=torch.int64)[places]

    def reasons(self) -> dict[int, str]:
        """Return the locked channels and why each is."""
        found: dict[int, str] = {}
        for (name, _), labels in self.sites.items():
            if name in self._kept:
                self.lock(labels, self._kept[name])
        for label, reason in self._locked.items():
            found.setdefault(self._find(label), reason)
        return found

    def _find(self, label: int) -> int:
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root


_SHARED = "'{}' is shared with something that has other channels"


def varying(labels: Tensor) -> list[int]:
    """The axes along which labels differ.

    >>> varying(torch.arange(3)[None, :, None].expand(2, 3, 4))
    [1]
    """
    axes = [axis for axis, size in enumerate(labels.shape) if size > 1]
    return [axis for axis in axes if bool((labels != labels.narrow(axis, 0, 1)).any())]


def narrowed(labels: Tensor, *kept: int) -> Tensor:
    """Labels at one place of each axis along which they are the same, but for the axes `kept`.

    >>> narrowed(torch.arange(3)[None, :, None].expand(2, 3, 4), 2).shape
    torch.Size([1, 3, 4])
    """
    for axis in set(range(labels.dim())) - {*varying(labels), *(at % labels.dim() for at in kept)}:
        labels = labels.narrow(axis, 0, 1)
    return labels


def uniform(labels: Tensor, axes: Any) -> bool:
    """Whether labels are the same along each of `axes`."""
    return not set(varying(labels)) & {axis % labels.dim() for axis in axes}
