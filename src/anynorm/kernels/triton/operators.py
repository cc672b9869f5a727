"""The operators for CUDA.  Each hands what the kernels do not serve to its plain-PyTorch twin."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from anynorm.kernels.triton import gradients, launch, running
from anynorm.kernels.triton.bits import empty
from anynorm.kernels.triton.call import Call, call
from anynorm.kernels.triton.scale import Scale

__all__ = [
    "moments",
    "normalize",
    "normalize_backward",
    "standardize",
    "standardize_backward",
    "track_",
]

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_OF_STATISTICS = (*_TYPES, torch.float64)
_BY_SIGN = ("relu", "leaky_relu")

Found = TypeVar("Found")
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _or_formula(kernel: Callable[..., Found | None]) -> Callable[..., Found]:
    """What a kernel returns; where that is None, what the plain formula does."""
    formula = getattr(torch.ops.anynorm, f"{kernel.__name__}_formula").default

    @functools.wraps(kernel)
    def either(*args: Any) -> Any:
        found = kernel(*args)
        return formula(*args) if found is None else found

    return either


@_or_formula
def standardize(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    dims: Sequence[int],
    *rest: Any,
) -> Four | None:
    """``anynorm::standardize``."""
    *statistic, phi = rest
    scale = Scale.of(*statistic)
    if scale is None or not _takes(x, (residual,), (weight, bias)):
        return None
    mean, square = _statistics(x, dims)
    y = torch.empty_like(x)
    found = _call(
        dims, x, y=y, residual=residual, weight=weight, bias=bias, mean=mean, square=square
    )
    kept = empty(x, residual is not None and phi in _BY_SIGN)
    if found is None or not launch.standardize(found, kept, scale, phi):
        return None
    return y, mean, square, _bits(kept, x)


@_or_formula
def moments(
    x: Tensor, dims: Sequence[int], center: bool, about_mean: bool, p: float, factor: float
) -> tuple[Tensor, Tensor] | None:
    """``anynorm::moments``."""
    scale = Scale.of(center, about_mean, p, factor, 0.0)
    if scale is None or not _takes(x, (), (None, None)):
        return None
    mean, square = _statistics(x, dims)
    found = _call(dims, x, mean=mean, square=square)
    return (mean, square) if found is not None and launch.moments(found, scale) else None


@_or_formula
def normalize(
    x: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    square: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    phi: str,
) -> tuple[Tensor, Tensor] | None:
    """``anynorm::normalize``."""
    if not _takes(x, (residual,), (weight, bias), (mean, square)):
        return None
    y, dims = torch.empty_like(x), _reduced(x, mean)
    found = _call(
        dims, x, y=y, residual=residual, weight=weight, bias=bias, mean=mean, square=square
    )
    kept = empty(x, residual is not None and phi in _BY_SIGN)
    if found is None:
        return None
    launch.normalize(found, kept, eps, phi)
    return y, _bits(kept, x)


@_or_formula
def standardize_backward(dy: Tensor, *args: Any) -> Four | None:
    """``anynorm::standardize_backward``."""
    *saved, dims, center, about_mean, p, factor, eps, phi = args
    scale = Scale.of(center, about_mean, p, factor, eps)
    return None if scale is None else _backward(dy, saved, dims, scale, phi)


@_or_formula
def normalize_backward(dy: Tensor, *args: Any) -> Four | None:
    """``anynorm::normalize_backward``."""
    *saved, eps, phi = args
    x, _, _, mean, *_ = saved
    return _backward(dy, saved, _reduced(x, mean), Scale.given(eps), phi)


def track_(
    mean: Tensor,
    var: Tensor,
    count: Tensor | None,
    batch_mean: Tensor,
    batch_var: Tensor,
    momentum: float | None,
    correction: float,
) -> None:
    """``anynorm::track_``."""
    tensors = (mean, var, batch_mean, batch_var)
    plain = all(t.shape == mean.shape and t.is_contiguous() for t in tensors)
    counted = count.dim() == 0 if count is not None else momentum is not None
    if plain and counted:
        return running.track(*tensors, count, momentum, correction)
    arguments = (mean, var, count, batch_mean, batch_var, momentum, correction)
    return torch.ops.anynorm.track_formula.default(*arguments)  # type: ignore[no-any-return]


def _backward(
    dy: Tensor, saved: Sequence[Any], dims: Sequence[int], scale: Scale, phi: str
) -> Four | None:
    x, residual, kept, mean, square, weight, bias = saved
    if not _takes(x, (dy, residual), (weight, bias), (mean, square)):
        return None
    gives = phi != "identity" and (residual is not None or kept.numel() > 0)
    if gives and phi in _BY_SIGN and not kept.numel():
        return None
    dx, dresidual = torch.empty_like(x), torch.empty_like(x) if gives else None
    found = _call(
        dims,
        x,
        dy=dy,
        residual=residual if phi != "identity" and not kept.numel() else None,
        weight=weight,
        bias=bias,
        mean=mean,
        square=square,
        dx=dx,
        dresidual=dresidual,
    )
    if found is None:
        return None
    of_affine = gradients.backward(found, kept if kept.numel() else None, scale, phi)
    return None if of_affine is None else (dx, _some(dresidual, x), *of_affine)


def _statistics(x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Memory for μ and s²."""
    shape = [1 if axis in dims else size for axis, size in enumerate(x.shape)]
    return x.new_empty(shape, dtype=torch.float64), x.new_empty(shape, dtype=torch.float64)


def _some(tensor: Tensor | None, x: Tensor) -> Tensor:
    """What an operator returns for nothing is empty."""
    return x.new_empty(0) if tensor is None else tensor


def _bits(kept: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(0, dtype=torch.uint8) if kept is None else kept


def _reduced(x: Tensor, mean: Tensor) -> list[int]:
    """The dims that given statistics do not have."""
    pairs = enumerate(zip(x.shape, mean.shape, strict=False))
    return [dim for dim, (size, own) in pairs if own == 1 and size > 1]


def _takes(
    x: Tensor,
    alike: Iterable[Tensor | None],
    affine: Sequence[Tensor | None],
    statistics: Iterable[Tensor] = (),
) -> bool:
    """Whether kernels take these types and shapes; what is wrong has its message in the formula."""
    weight, bias = affine
    return (
        x.numel() > 1
        and x.dtype in _TYPES
        and all(t is None or (t.dtype == x.dtype and t.shape == x.shape) for t in alike)
        and all(t is None or (t.dtype in _TYPES and _beside(t, x)) for t in affine)
        and (weight is None or bias is None or weight.shape == bias.shape)
        and all(t.dtype in _OF_STATISTICS and _beside(t, x) for t in statistics)
    )


def _beside(tensor: Tensor, x: Tensor) -> bool:
    return tensor.dim() == x.dim() and all(
        own in (1, size) for own, size in zip(tensor.shape, x.shape, strict=True)
    )


def _call(dims: Sequence[int], x: Tensor, **others: Tensor | None) -> Call | None:
    """The axes of a call.  Four do not do for some sliced tensors: then a copy is made of them."""
    if not dims:
        return None
    for name in ("weight", "bias"):  # their gradients are numbered as they lie
        others[name] = None if (own := others[name]) is None else own.contiguous()
    found = call(dims, {"x": x, **others})
    if found is not None:
        return found
    for name in ("dy", "residual"):
        if (own := others.get(name)) is not None:
            others[name] = _copied(own, x)
    return call(dims, {"x": _copied(x, x), **others})


def _copied(tensor: Tensor, like: Tensor) -> Tensor:
    return torch.empty_like(like).copy_(tensor)
