"""Give a module a forward in which normalizers add residuals and apply activations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from anynorm.surgery.fusing.blocks import Blocks, Traced
from anynorm.surgery.fusing.patterns import Chain, Match, chain
from anynorm.surgery.refused import Refused

__all__ = ["Source", "new_forward", "rewrite"]

Source = tuple[str, str]  # the imports, and the function `forward`


def new_forward(block: nn.Module, matches: Sequence[Match], blocks: Blocks) -> Source:
    """Plan the forward of `block` without the sums and activations of `matches`.

    A normalizer with a residual gets it as a second argument.  Raises `Refused` if there can be no
    such forward.
    """
    _check_class(block)
    inside = {block.get_submodule(name): name for m in matches for name in _opened(m, blocks)}
    for module in inside:
        _check_class(module)
        if type(module).__call__ is not nn.Module.__call__:
            raise Refused(f"{blocks.told(module)} does more when it is called than its forward")
    found = blocks.general(block, inside.values())
    chains = {m: chain(_value(m, found, blocks), found) for m in matches}
    for one, values in chains.items():
        _without_activation(values, _name(one.norm.module, block, blocks))
    made = GraphModule(found.root, found.graph)
    _, (state, imports) = made.__reduce__()[:2]
    return imports, state["_code"]


def rewrite(block: Any, source: Source) -> None:
    """Change the class of a module to one with another forward.

    The module itself stays, with its parameters, hooks and attributes.
    """
    kind: Any = type(block)
    block.__class__ = _fused(getattr(kind, "fused_from", kind), source)


def _check_class(module: nn.Module) -> None:
    kind = type(module).__name__
    if isinstance(module, (GraphModule, torch.jit.ScriptModule)):
        raise Refused(f"the forward of a {kind} is not that of its class")


def _opened(match: Match, blocks: Blocks) -> list[str]:
    """The modules whose forwards become part of the new one, since a residual must pass them."""
    if match.chain.total is None:
        return []
    return [_name(module, match.block, blocks) for module in match.inside]


def _name(module: nn.Module, block: nn.Module, blocks: Blocks) -> str:
    """The name of a module in `block`."""
    prefix = blocks.names[block][0]
    return blocks.names[module][0].removeprefix(f"{prefix}." if prefix else "")


def _value(match: Match, found: Traced, blocks: Blocks) -> Node:
    """The first value of a match in a graph that has the forwards of more modules."""
    outer = match.inside[-1] if match.inside and match.chain.total is None else match.norm.module
    (call,) = found.calls(_name(outer, match.block, blocks))
    return call


def _without_activation(values: Chain, norm: str) -> None:
    """Remove an activation from its graph, and the sum in front of it if there is one."""
    graph = values.end.graph
    if values.total is None:
        values.end.replace_all_uses_with(values.values[-1])
        graph.erase_node(values.end)
        return
    with graph.inserting_before(values.total):
        call = graph.call_module(norm, (values.values[0].args[0], values.residual))
    values.end.replace_all_uses_with(call)
    for node in (values.end, *reversed(values.values)):
        graph.erase_node(node)


@cache
def _fused(base: Any, source: Source) -> Any:
    """The class with the new forward; the same one for modules with the same code."""
    imports, code = source
    names: dict[str, Any] = {}
    exec(compile(f"{imports}\n{code}", f"<fused {base.__name__}>", "exec"), names)

    def reduced(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        # Pickle finds no class that is not in a module.
        return _restored, (base, source), *base.__reduce_ex__(self, protocol)[2:]

    members = {
        "__doc__": base.__doc__,
        "__module__": base.__module__,
        "__reduce_ex__": reduced,
        "forward": names["forward"],
        "fused_from": base,
    }
    return type(f"Fused{base.__name__}", (base,), members)


def _restored(base: Any, source: Source) -> nn.Module:
    """A module of the fused class without its state, which pickle and copy fill in."""
    kind = _fused(base, source)
    restored: nn.Module = kind.__new__(kind)
    return restored
