"""Trace the forward of one module with torch.fx, with the shapes that values have on an example."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.fx import Node, Proxy, Tracer
from torch.utils._pytree import tree_map_only

from anynorm.surgery.fusing.observe_calls import Called, without_values

__all__ = ["BlockTracer", "like"]

_METADATA = ("shape", "ndim", "dtype", "device", "size", "dim", "numel", "is_floating_point")


def like(node: Node) -> Any:
    """What a value is on the example, without its numbers; None if that is not known."""
    return node.meta.get("like")


class BlockTracer(Tracer):
    """Records the calls of all modules but `opened`, for the arguments of the first call.

    If it is `shaped`, the forward may use the shapes and types of this call.
    """

    proxy_buffer_attributes = True

    def __init__(
        self,
        given: Mapping[str, Any],
        opened: Collection[str],
        calls: Mapping[nn.Module, Called],
        shaped: bool,
    ) -> None:
        super().__init__()
        self._given, self._opened, self._shaped = given, opened, shaped
        self._outputs = {module: iter(called.outputs) for module, called in calls.items()}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        """Whether the call of a module is one operator."""
        return module_qualified_name not in self._opened

    def create_args_for_root(self, root_fn: Any, *_: Any, **__: Any) -> Any:
        """Only tensors are inputs: a proxy would not be None, and not False, as others may be."""
        given = {name: self._inputs(name, value) for name, value in self._given.items()}
        return partial(root_fn, **given), [self.root]

    def _inputs(self, name: str, value: Any) -> Any:
        def placeholder(x: Tensor) -> Proxy:
            found: Proxy = self.create_proxy("placeholder", name, (), {})
            found.node.meta["like"] = x
            return found

        return tree_map_only(Tensor, placeholder, value)

    def create_arg(self, a: Any) -> Any:
        """Convert an argument of an operator."""
        try:
            return super().create_arg(a)
        except NotImplementedError:  # an object such as a cache, for which a graph has no place
            if self._shaped:  # nobody runs this graph
                return None
            raise

    def proxy(self, node: Node) -> Proxy:
        """Stand for the value of a node in the forward."""
        return (_Shaped if self._shaped else _Exact)(node, self)

    def create_proxy(self, kind: str, target: Any, *rest: Any, **more: Any) -> Any:
        """Record an operator, and note what it returns on the example."""
        if _in_checkpoint():
            raise NotImplementedError("it is in a checkpoint, which a graph would leave out")
        found = super().create_proxy(kind, target, *rest, **more)
        if isinstance(found, Proxy):
            found.node.meta["like"] = self._like(found.node)
        return found

    def _like(self, node: Node) -> Any:
        target: Any = node.target
        if node.op == "call_module":
            # A copy of a child with several names has no outputs.
            return next(self._outputs.get(self.root.get_submodule(target), iter(())), None)
        try:
            if node.op == "get_attr":
                owner, _, name = target.rpartition(".")
                module = self.root.get_submodule(owner)
                state = {**vars(module), **module._buffers, **module._parameters}
                return without_values(state[name])
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), like)
            if node.op == "call_function":
                return target(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
        except Exception:
            pass
        return None


def _in_checkpoint() -> bool:
    """Whether a function for activation checkpointing runs."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename != torch.utils.checkpoint.__file__:
        frame = frame.f_back
    return frame is not None


class _Exact(Proxy):
    """A proxy that records operators in place, such as `+=`, as what they are."""


def _in_place(name: str) -> Any:
    def record(self: Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return record


for _name in ("iadd", "isub", "imul", "itruediv", "ipow", "iand", "ior", "ixor", "imatmul"):
    setattr(_Exact, f"__{_name}__", _in_place(_name))


class _Shaped(_Exact):
    """A proxy with the shape and type that the value has on the example."""

    def __getattr__(self, name: str) -> Any:
        known = like(self.node) if name in _METADATA else None
        return getattr(known, name) if isinstance(known, Tensor) else super().__getattr__(name)
