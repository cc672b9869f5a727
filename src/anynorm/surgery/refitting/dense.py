"""Calls of linear layers and convolutions: as products of a matrix with rows of input values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from anynorm.surgery.streaming_stats import double

__all__ = ["DenseCall", "DenseCalls", "Layer", "as_matrix", "as_weight"]

Layer = tuple[Tensor, Tensor | None]  # a weight, and its bias if there is one

_PIECE = 2**24  # values: what one piece of rows may have, in float64

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (
    *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)


def _addmm(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: A002
    """`torch.addmm` with the names of a linear layer; the weight is (inputs, outputs)."""
    return torch.addmm(bias, input, weight)


_MATRIX = ("bias", "input", "weight")
_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    torch.addmm: _MATRIX,
    _addmm: _MATRIX,
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _CONVOLUTION),
    **dict.fromkeys(
        (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _TRANSPOSED
    ),
}


@dataclass(frozen=True)
class DenseCall:
    """A call of a linear layer or convolution.

    Its outputs are a product: for each of its groups, a matrix of (outputs, features) with the
    rows of features, which are the values that one output position reads, and the bias.

    >>> x, weight = torch.randn(2, 3, 8), torch.randn(4, 3, 5)
    >>> call = DenseCall(torch.conv1d, {"input": x, "weight": weight, "padding": 2})
    >>> rows, outputs = next(call.pieces(call.run(weight, None)))  # of the first sample
    >>> matrix = as_matrix(weight, groups=1, transposed=False)
    >>> rows.shape, matrix.shape
    (torch.Size([1, 8, 15]), torch.Size([1, 4, 15]))
    >>> torch.allclose(rows @ matrix.mT.double(), outputs, atol=1e-5)
    True
    """

    function: Callable[..., Tensor]
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, func: Any, args: Any, kwargs: Mapping[str, Any]) -> DenseCall | None:
        """The call of a function; None for another function."""
        names = _ARGUMENTS.get(func)
        if names is None:
            return None
        named = {**dict(zip(names, args)), **kwargs}  # noqa: B905
        return cls(_addmm if func is torch.addmm else func, named)

    def run(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The outputs with another weight and bias."""
        return self.function(**{**self.arguments, "weight": weight, "bias": bias})

    @property
    def x(self) -> Tensor:
        """The input."""
        found: Tensor = self.arguments["input"]
        return found

    @property
    def weight(self) -> Tensor:
        """The weight."""
        found: Tensor = self.arguments["weight"]
        return found

    @property
    def layer(self) -> Layer:
        """The weight and bias of the call itself."""
        return self.weight, self.arguments.get("bias")

    @property
    def groups(self) -> int:
        """How many parts the channels have that are not connected to each other."""
        return int(self.arguments.get("groups", 1))

    @property
    def transposed(self) -> bool:
        """Whether the first axis of the weight has the inputs."""
        return _ARGUMENTS[self.function] in (_TRANSPOSED, _MATRIX)

    @property
    def channel_axis(self) -> int:
        """The axis of the outputs that has the channels."""
        return -1 - self._rank

    @property
    def _rank(self) -> int:
        """The number of axes of positions: none of a linear layer."""
        return self.weight.dim() - 2

    def pieces(self, outputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of features, (groups, rows, features), with the `outputs` that they give.

        They are in float64, in two pieces or more, so that each is small beside the widest matrix.
        """
        if not self._rank:
            x, y = self.x.flatten(0, -2)[None], outputs.flatten(0, -2)[None]
            many = _many(x.shape[1], x.shape[-1])
            yield from zip(
                map(double, x.split(many, 1)), map(double, y.split(many, 1)), strict=True
            )
            return
        single = self.x.dim() == self._rank + 1
        x, y = (one[None] if single else one for one in (self.x, outputs))
        features = x.shape[1] * math.prod(self.weight.shape[2:])
        many = _many(len(x), features * math.prod(y.shape[2:]))
        for part, found in zip(x.split(many), y.split(many), strict=True):
            yield self._rows(double(part)), self._by_group(double(found))

    def _by_group(self, y: Tensor) -> Tensor:
        """(N, channels, positions...) as (groups, rows, channels of each)."""
        rows = y.movedim(1, -1).flatten(0, -2)
        return rows.reshape(len(rows), self.groups, -1).movedim(1, 0)

    def _rows(self, x: Tensor) -> Tensor:
        stride, dilation = self._each("stride", 1), self._each("dilation", 1)
        kernel = self.weight.shape[2:]
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if self.transposed:
            x, stride = self._with_gaps(x, stride, spans), [1] * self._rank
        else:
            x = F.pad(x, self._padding(spans))
        for axis, (span, step, gap) in enumerate(zip(spans, stride, dilation, strict=True)):
            x = x.unfold(2 + axis, span + 1, step)[..., ::gap]
        rows = x.movedim(1, 1 + self._rank).flatten(0, self._rank)
        return rows.reshape(len(rows), self.groups, -1).movedim(1, 0)

    def _with_gaps(self, x: Tensor, stride: list[int], spans: list[int]) -> Tensor:
        """The input of the convolution without stride that gives the same as a transposed one."""
        sizes = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], stride, strict=True)]
        wide = x.new_zeros(*x.shape[:2], *sizes)
        every: Any = (..., *(slice(None, None, step) for step in stride))
        wide[every] = x
        sides = [
            (span - pad, span - pad + more)
            for span, pad, more in zip(
                spans, self._each("padding", 0), self._each("output_padding", 0), strict=True
            )
        ]
        return F.pad(wide, list(chain.from_iterable(reversed(sides))))

    def _padding(self, spans: list[int]) -> list[int]:
        """How much is padded, as `F.pad` takes it: the last axis first."""
        padding = self.arguments.get("padding", 0)
        if padding == "valid":
            return [0] * 2 * self._rank
        if padding == "same":  # what is left over of an odd number goes to the end
            sides = [(span // 2, span - span // 2) for span in spans]
        else:
            sides = [(pad, pad) for pad in self._each("padding", 0)]
        return list(chain.from_iterable(reversed(sides)))

    def _each(self, name: str, default: int) -> list[int]:
        """An argument for each axis of positions."""
        given = self.arguments.get(name, default)
        found: list[int] = [given] if isinstance(given, int) else list(given)
        return found * self._rank if len(found) == 1 else found


def _many(count: int, size: int) -> int:
    """How many of `count` things of this size are one piece."""
    return max(1, min(-(-count // 2), _PIECE // max(1, size)))


def as_matrix(weight: Tensor, groups: int, transposed: bool) -> Tensor:
    """A weight as (groups, outputs of each, features); the taps of one input are together.

    >>> as_matrix(torch.zeros(4, 3, 5), 2, transposed=False).shape
    torch.Size([2, 2, 15])
    """
    if not transposed:
        return weight.reshape(groups, len(weight) // groups, -1)
    parts: Tensor = weight.unflatten(0, (groups, -1)).transpose(1, 2)
    return parts.flip(_taps(weight.shape)).flatten(2)


def as_weight(matrix: Tensor, shape: torch.Size, transposed: bool) -> Tensor:
    """The weight that a matrix is; the inverse of :func:`as_matrix`.

    >>> weight = torch.randn(4, 3, 5)
    >>> as_weight(as_matrix(weight, 2, transposed=True), weight.shape, True).equal(weight)
    True
    """
    if not transposed:
        return matrix.reshape(shape)
    parts: Tensor = matrix.reshape(len(matrix), shape[1], -1, *shape[2:])
    return parts.flip(_taps(shape)).transpose(1, 2).reshape(shape)


def _taps(shape: torch.Size) -> list[int]:
    """The axes of the kernel, behind groups, outputs and inputs."""
    return list(range(3, 1 + len(shape)))


class DenseCalls(TorchFunctionMode):
    """Hands every call of a layer with one of the given weights to a function, while models run.

    The layers inside of ``torch.nn.MultiheadAttention`` are not seen: torch calls them within one
    function.

    Args:
        weights: the weights.
        handle: what gives the outputs, from the name of the weight and the call.

    Example:
        >>> layer = torch.nn.Linear(2, 3)
        >>> found = []
        >>> def handle(name, call):
        ...     found.append((name, call.x.shape))
        ...     return call.run(*call.layer)
        >>> with DenseCalls({"weight": layer.weight}, handle):
        ...     _ = layer(torch.randn(4, 2))
        >>> found
        [('weight', torch.Size([4, 2]))]
    """

    def __init__(
        self, weights: Mapping[str, Tensor], handle: Callable[[str, DenseCall], Tensor]
    ) -> None:
        super().__init__()
        self._names = {id(weight): name for name, weight in weights.items()}
        self._handle = handle

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = DenseCall.of(func, args, kwargs or {})
        name = None if call is None else self._names.get(id(call.weight))
        if call is None or name is None:
            return func(*args, **(kwargs or {}))
        return self._handle(name, call)
