"""Normalization that is no module: calls such as `F.layer_norm` in the forward of a module."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["FunctionalCall", "Watcher"]

# An operator of the chain  rsqrt(mean(square(x)) + ε), by the result that it gives.
_SQUARES = {torch.square, Tensor.square}
_POWERS = {torch.pow, Tensor.pow, Tensor.__pow__}
_MEANS = {torch.mean, Tensor.mean}
_VARIANCES = {torch.var, Tensor.var}
_SUMS = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_}
_DIFFERENCES = {torch.sub, Tensor.sub, Tensor.__sub__}
_ROOTS = {torch.rsqrt, Tensor.rsqrt, torch.sqrt, Tensor.sqrt}
_CASTS = {Tensor.to, Tensor.float, Tensor.double, Tensor.type}


@dataclass(frozen=True)
class FunctionalCall:
    """A call of a function that normalizes.

    Args:
        owner: the name of the module in whose forward it is.
        function: the function, in words.
        line: the file and the line.
        x: the input.
        layer: a layer of torch.nn that computes the same; None if there is none.
    """

    owner: str
    function: str
    line: str
    x: Tensor
    layer: nn.Module | None

    @property
    def name(self) -> str:
        """What the call is named by in messages."""
        where = f"{self.function}, {self.line}"
        return f"{self.owner} ({where})" if self.owner else f"({where})"


@dataclass(frozen=True)
class _Part:
    """What a tensor of the chain is: the values x, and the axes and ε so far."""

    kind: str  # "centred", "square", "mean"
    x: Tensor
    dims: tuple[int, ...] = ()
    eps: float = 0.0
    centred: bool = False


class Watcher(TorchFunctionMode):
    """Tells of each call of a function that normalizes activations, while a model runs.

    Args:
        model: the model.
        known: modules whose calls are not told, because they are normalizers themselves.
        see: what is told.

    Example:
        >>> class Block(nn.Module):
        ...     def forward(self, x):
        ...         return F.layer_norm(x, x.shape[-1:])
        >>> found = []
        >>> with Watcher(model := Block(), [], found.append):
        ...     _ = model(torch.randn(2, 3))
        >>> found[0].function, type(found[0].layer).__name__
        ('F.layer_norm', 'LayerNorm')
    """

    def __init__(
        self,
        model: nn.Module,
        known: Collection[nn.Module],
        see: Callable[[FunctionalCall], object],
    ) -> None:
        super().__init__()
        self._names = {module: name for name, module in model.named_modules()}
        self._known, self._see = set(known), see
        self._weights = {_memory(p) for p in model.parameters()}
        self._parts: dict[int, tuple[weakref.ref[Tensor], _Part]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        y = func(*args, **kwargs)
        if func in _LAYERS:
            name, layer = _LAYERS[func]
            self._tell(name, args[0] if args else kwargs["input"], lambda: layer(args, kwargs))
        elif args and isinstance(args[0], Tensor) and isinstance(y, Tensor):
            self._follow(func, y, args, kwargs)
        return y

    def _follow(self, func: Any, y: Tensor, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Follow the chain of operators."""
        part = self._part(args[0])
        if func in _ROOTS and part is not None and part.kind == "mean":
            self._tell(_words(part), part.x, lambda: _of_chain(part))
        new = _next(func, args, kwargs, part)
        if new is not None:
            key = id(y)
            # A part has values of the forward; it goes when the result does.
            gone = weakref.ref(y, lambda _: self._parts.pop(key, None))
            self._parts[key] = (gone, new)

    def _part(self, x: Tensor) -> _Part | None:
        found = self._parts.get(id(x))
        return found[1] if found is not None and found[0]() is x else None

    def _tell(self, function: str, x: Tensor, make: Callable[[], nn.Module | None]) -> None:
        if _memory(x) in self._weights:
            return  # a weight is normalized
        frame: Any = sys._getframe(2)
        line = ""
        while frame is not None:
            file = frame.f_code.co_filename
            if not line and "/torch/" not in file and file != __file__:
                line = f"{Path(file).name}:{frame.f_lineno}"
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and owner in self._names:
                if owner not in self._known:
                    call = FunctionalCall(self._names[owner], function, line, x, make())
                    self._see(call)
                return
            frame = frame.f_back


def _memory(x: Tensor) -> int:
    try:
        return x.untyped_storage().data_ptr() or id(x)
    except (RuntimeError, NotImplementedError):
        return id(x)


def _next(func: Any, args: Any, kwargs: Mapping[str, Any], part: _Part | None) -> _Part | None:
    """What the result of an operator is in the chain; None if it is not part of one."""
    x = args[0]
    if func in _CASTS:
        return part
    if func in _DIFFERENCES and part is None:
        return _Part("centred", x, centred=True)
    if func in _SQUARES or (func in _POWERS and len(args) > 1 and _is_two(args[1])):
        centred = part is not None and part.kind == "centred"
        return _Part("square", part.x if centred and part else x, centred=centred)
    if func in _MEANS and part is not None and part.kind == "square":
        return _with_dims(part, args, kwargs)
    if func in _VARIANCES:
        return _with_dims(_Part("square", x, centred=True), args, kwargs)
    if func in _SUMS and part is not None and part.kind == "mean" and len(args) > 1:
        eps = args[1]
        return replace(part, eps=float(eps)) if isinstance(eps, (int, float)) else None
    return None


def _is_two(power: Any) -> bool:
    return isinstance(power, (int, float)) and power == 2


def _with_dims(part: _Part, args: Any, kwargs: Mapping[str, Any]) -> _Part | None:
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if not isinstance(dims, (int, tuple, list)) or isinstance(dims, bool):
        return None
    axes = (dims,) if isinstance(dims, int) else tuple(dims)
    rank = part.x.dim()
    return replace(part, kind="mean", dims=tuple(sorted(axis % rank for axis in axes)))


def _words(part: _Part) -> str:
    kind = "a layer norm" if part.centred else "an RMS norm"
    return f"{kind} as arithmetic"


def _of_chain(part: _Part) -> nn.Module | None:
    """The layer for a chain over the last axes."""
    rank = part.x.dim()
    if part.dims != tuple(range(rank - len(part.dims), rank)):
        return None
    kind = nn.LayerNorm if part.centred else nn.RMSNorm
    shape = list(part.x.shape[rank - len(part.dims) :])
    return kind(shape, eps=part.eps, elementwise_affine=False)


def _argument(args: Any, kwargs: Mapping[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _affine(layer: nn.Module, weight: Any, bias: Any = None) -> nn.Module:
    for name, value in (("weight", weight), ("bias", bias)):
        if name in layer._parameters:
            kept = value is None or isinstance(value, nn.Parameter)
            setattr(layer, name, value if kept else nn.Parameter(value.detach()))
    return layer


def _layer_norm(args: Any, kwargs: Mapping[str, Any]) -> nn.Module:
    shape = list(_argument(args, kwargs, 1, "normalized_shape", ()))
    weight, bias = (_argument(args, kwargs, *one, None) for one in ((2, "weight"), (3, "bias")))
    eps = _argument(args, kwargs, 4, "eps", 1e-5)
    if weight is None and bias is None:
        return nn.LayerNorm(shape, eps=eps, elementwise_affine=False)
    return _affine(nn.LayerNorm(shape, eps=eps, device="meta"), weight, bias)


def _rms_norm(args: Any, kwargs: Mapping[str, Any]) -> nn.Module:
    shape = list(_argument(args, kwargs, 1, "normalized_shape", ()))
    weight = _argument(args, kwargs, 2, "weight", None)
    eps = _argument(args, kwargs, 3, "eps", None)
    eps = torch.finfo(args[0].dtype).eps if eps is None else eps
    return _affine(nn.RMSNorm(shape, eps=eps, device="meta"), weight)


def _group_norm(args: Any, kwargs: Mapping[str, Any]) -> nn.Module:
    groups = _argument(args, kwargs, 1, "num_groups", 1)
    weight, bias = (_argument(args, kwargs, *one, None) for one in ((2, "weight"), (3, "bias")))
    eps = _argument(args, kwargs, 4, "eps", 1e-5)
    x = args[0] if args else kwargs["input"]
    return _affine(nn.GroupNorm(groups, x.shape[1], eps, device="meta"), weight, bias)


def _none(*_: Any) -> None:
    return None


_LAYERS: dict[Any, tuple[str, Callable[[Any, Any], nn.Module | None]]] = {
    F.layer_norm: ("F.layer_norm", _layer_norm),
    torch.layer_norm: ("torch.layer_norm", _layer_norm),
    F.rms_norm: ("F.rms_norm", _rms_norm),
    torch.rms_norm: ("torch.rms_norm", _rms_norm),
    F.group_norm: ("F.group_norm", _group_norm),
    torch.group_norm: ("torch.group_norm", _group_norm),
    F.batch_norm: ("F.batch_norm", _none),
    torch.batch_norm: ("torch.batch_norm", _none),
    F.instance_norm: ("F.instance_norm", _none),
    torch.instance_norm: ("torch.instance_norm", _none),
}
