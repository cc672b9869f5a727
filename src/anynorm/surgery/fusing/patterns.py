"""Find the activation that follows a normalizer, with or without a sum, or why there is none."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from anynorm.surgery.fusing.blocks import Blocks, Traced
from anynorm.surgery.fusing.phi import phi_of_call, phi_of_module
from anynorm.surgery.fusing.tracer import like
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refused import Refused
from anynorm.surgery.transfer_hooks import hooked

__all__ = ["Chain", "Match", "chain", "match"]

_INPLACE = (operator.iadd, "add_")
_IN_FRONT = "; a residual is added in front of it, and anynorm's layers only add one behind"
_SUMS = (operator.add, torch.add, "add", *_INPLACE)


@dataclass(frozen=True, eq=False)
class Chain:
    """Values that are each used once: identities and at most one sum, and the `end` behind them."""

    values: tuple[Node, ...]
    total: Node | None
    end: Node

    @property
    def residual(self) -> Node:
        """The other term of the sum."""
        assert self.total is not None
        one, other = self.total.all_input_nodes
        return other if one in self.values else one


@dataclass(frozen=True, eq=False)
class Match:
    """A normalizer, and what follows it in the forward of `block`.

    `inside` are the modules that contain it and return its output, from the innermost on; the
    chain starts with the call of the outermost, or of the normalizer itself.
    """

    norm: Normalizer
    block: nn.Module
    inside: tuple[nn.Module, ...]
    chain: Chain
    phi: str

    @property
    def told(self) -> str:
        """What is fused, for the receipt."""
        return self.phi if self.chain.total is None else f"the residual and {self.phi}"


def match(norm: Normalizer, blocks: Blocks) -> Match:
    """Follow the output of a normalizer to an activation; raises `Refused` if there is none."""
    block, value = _call_of(norm.module, blocks)
    if len(value.args) != 1 or value.kwargs:
        raise Refused("it is called with more than its input")
    first = value.args[0]
    block, inside, found = _outermost(block, value, blocks)
    traced = blocks.traced(block)
    phi = _activation(found.end, traced)
    if phi is None:
        what = "its output" if found.total is None else "its sum with a residual"
        told = f"no activation follows: {what} goes to {_described(found.end, traced)}"
        raise Refused(told + (_IN_FRONT if _is_sum(first) else ""))
    if found.total is not None:
        _check_residual(found)
    applied_by = traced.module(found.end)
    if applied_by is not None and hooked(applied_by):
        raise Refused(f"{_described(found.end, traced)} has hooks, and would get the result of φ")
    return Match(norm, block, inside, found, phi)


def _outermost(
    block: nn.Module, value: Node, blocks: Blocks
) -> tuple[nn.Module, tuple[nn.Module, ...], Chain]:
    """The module that does more with a value than to return it, those inside, and what it does."""
    inside: list[nn.Module] = []
    while True:
        found = chain(value, blocks.traced(block))
        if found.end.op != "output" or found.total is not None:
            return block, tuple(inside), found
        if found.end.args[0] is not found.values[-1]:
            raise Refused(f"{blocks.told(block)} returns its output together with others")
        if "" in blocks.names[block]:
            raise Refused("no activation follows: its output is that of the model")
        inside.append(block)
        block, value = _call_of(block, blocks)


def chain(value: Node, traced: Traced) -> Chain:
    """What follows a value; raises `Refused` if it, or its sum, is used more than once."""
    values, total = [value], None
    while True:
        users = list(values[-1].users)
        if len(users) != 1:
            told = ", ".join(_described(user, traced) for user in users) or "nothing"
            raise Refused(f"its output has {len(users)} uses: {told}")
        user = users[0]
        if total is None and _is_sum(user):
            if user.target in _INPLACE and user.args[0] is not values[-1]:
                raise Refused("its output is added to another value in place")
            total = user
        elif type(traced.module(user)) is not nn.Identity:
            return Chain(tuple(values), total, user)
        values.append(user)


def _check_residual(values: Chain) -> None:
    """Raise `Refused` if the residual has not the shape and type of what it is added to."""
    y, residual = like(values.values[0]), like(values.residual)
    if not (isinstance(y, Tensor) and isinstance(residual, Tensor)):
        raise Refused("the shape of the residual is not known")
    if (y.shape, y.dtype) != (residual.shape, residual.dtype):
        raise Refused(f"the residual is {_told(residual)}, and is added to {_told(y)}")


def _told(x: Tensor) -> str:
    return f"a tensor of shape {tuple(x.shape)} and type {x.dtype}"


def _call_of(module: nn.Module, blocks: Blocks) -> tuple[nn.Module, Node]:
    """The module whose forward calls `module`, and the only call."""
    told, names = blocks.told(module), blocks.names[module]
    if len(names) > 1:
        raise Refused(f"{told} is shared: {', '.join(map(repr, names))}")
    count = blocks.calls[module].count
    if not count:
        raise Refused(f"{told} is not called on the example")
    if hooked(module):
        raise Refused(f"{told} has hooks, which would get the output of the activation")
    owner, name = blocks.owner(names[0])
    calls = blocks.traced(owner).calls(name)
    if not calls:
        raise Refused(f"{told} is not called in the forward of {blocks.told(owner)} itself")
    if len(calls) != 1 or count != blocks.calls[owner].count:
        raise Refused(f"{told} is called {count} times, not once by {blocks.told(owner)}")
    return owner, calls[0]


def _is_sum(node: Any) -> bool:
    return (
        isinstance(node, Node)
        and node.op in ("call_function", "call_method")
        and node.target in _SUMS
        and not node.kwargs
        and len(node.args) == len(node.all_input_nodes) == 2
    )


def _activation(node: Node, traced: Traced) -> str | None:
    module = traced.module(node)
    if module is None:
        return phi_of_call(node)
    return phi_of_module(module) if len(node.args) == 1 and not node.kwargs else None


def _described(node: Node, traced: Traced) -> str:
    module = traced.module(node)
    if module is not None:
        return f"{type(module).__name__} {node.target!r}"
    return "the output" if node.op == "output" else str(node.name)
