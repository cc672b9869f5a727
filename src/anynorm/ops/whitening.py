"""σ as a square root of the covariance matrix, in plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anynorm.ops.eigen import jacobi
from anynorm.ops.registry import below_autograd, define, operator

__all__ = ["inverse_root", "moments"]

_ROOT = define("inverse_square_root(Tensor matrix) -> Tensor")


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (G, C, 1) and the covariance (G, C, C) of x (G, C, M) over its last axis."""
    mean = x.mean(-1, keepdim=True)
    centred = x - mean
    return mean, centred @ centred.mT / x.shape[-1]


def inverse_root(covariance: Tensor, kind: str, eps: float) -> Tensor:
    """Return the matrix that whitens: (Σ + εI)^(−1/2) for ZCA, Λ^(−1/2) Uᵀ for PCA.

    Shapes: (G, C, C) → (G, C, C).  The largest component of each principal axis is positive.
    """
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    finite = covariance.isfinite().all(-1).all(-1)[..., None, None]
    # Where it is not, the values are not finite either, and say so in the output.
    regular = torch.where(finite, covariance + eps * eye, eye)
    if kind == "zca":
        root: Tensor = _inverse_square_root(regular)
        return root
    values, axes = _eigen(regular)
    largest = axes.detach().abs().argmax(-2, keepdim=True)
    axes = axes * axes.detach().gather(-2, largest).sign()
    whitener: Tensor = values.rsqrt().unsqueeze(-1) * axes.mT
    return whitener


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and axes, with eigenvalues of a covariance above the largest one's rounding.

    Those of directions without variance would otherwise come out negative now and then.
    """
    eigh = jacobi if torch.compiler.is_exporting() else torch.linalg.eigh
    values, axes = eigh(matrix)
    floor = values.detach()[..., -1:] * torch.finfo(matrix.dtype).eps
    return torch.maximum(values, floor), axes


def _root(matrix: Tensor) -> Tensor:
    values, axes = _eigen(matrix)
    root: Tensor = axes * values.rsqrt().unsqueeze(-2) @ axes.mT
    return root


def _save(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(output)


def _differentiate(ctx: Any, gradient: Tensor) -> Tensor:
    """The Daleckii–Krein derivative, which is finite for equal eigenvalues too.

    torch's own derivative of ``eigh`` divides by differences of eigenvalues.
    """
    (root,) = ctx.saved_tensors
    # With r = λ^(−1/2): (r_i − r_j) / (λ_i − λ_j) = −r_i² r_j² / (r_i + r_j).
    r, axes = torch.linalg.eigh(root)
    rows, columns = r.unsqueeze(-1), r.unsqueeze(-2)
    quotients = -((rows * columns) ** 2) / (rows + columns)
    symmetric = (gradient + gradient.mT) / 2
    pulled: Tensor = axes @ (quotients * (axes.mT @ symmetric @ axes)) @ axes.mT
    return pulled


def _rule(call: Any, info: Any, in_dims: tuple[int], matrix: Tensor) -> tuple[Tensor, int]:
    return call(matrix.movedim(in_dims[0], 0)), 0


class _InverseSquareRoot(torch.autograd.Function):
    forward = staticmethod(below_autograd(_ROOT))
    setup_context = staticmethod(_save)
    backward = staticmethod(_differentiate)
    rule = staticmethod(_rule)


_inverse_square_root = operator(_ROOT, _root, torch.empty_like, _InverseSquareRoot)
