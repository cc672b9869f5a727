"""y = W (x − μ) with W a root of the inverse covariance, and its gradient (whitening).

Huang et al. 2018, "Decorrelated batch normalization", arXiv:1804.08450.
"""

from __future__ import annotations

from typing import Protocol

from anynorm.reference.arrays import Array, less_mean, namespace, transpose
from anynorm.spec import Scale

__all__ = ["PCA", "ZCA", "Root", "Whitened", "Whitening", "root"]


class Root(Protocol):
    """A matrix W with W Σ Wᵀ = I for covariances Σ, and the gradient through it."""

    matrix: Array

    def backward(self, dmatrix: Array) -> Array:
        """Return the symmetric ∂L/∂Σ from ∂L/∂W."""


class ZCA:
    """W = Σ^(−1/2) = U Λ^(−1/2) Uᵀ, the symmetric root: whitened values stay close to x.

    For any function f of a symmetric matrix, with Σ = U Λ Uᵀ (Daleckii & Krein 1965):

        ∂L/∂Σ = U (F ∘ (Uᵀ ∂L/∂W U)) Uᵀ,   F_ij = (f(λi) − f(λj)) / (λi − λj).

    For f(λ) = 1/√λ the difference divides out: F_ij = −1 / (√λi √λj (√λi + √λj)), which is finite
    where eigenvalues coincide, as they do on data that are white already.
    """

    def __init__(self, covariance: Array) -> None:
        self._values, self._vectors = _spectrum(covariance)
        columns = self._vectors / self._values[..., None, :] ** 0.5
        self.matrix = columns @ transpose(self._vectors)

    def backward(self, dmatrix: Array) -> Array:
        """Return ∂L/∂Σ."""
        U, rows = self._vectors, self._values[..., :, None] ** 0.5
        columns = transpose(rows)
        F = -1.0 / (rows * columns * (rows + columns))
        return _symmetric(U @ (F * (transpose(U) @ dmatrix @ U)) @ transpose(U))


class PCA:
    """W = Λ^(−1/2) Uᵀ: rows are the principal axes, of ascending eigenvalue.

    An eigenvector's sign is arbitrary; here its component of largest size is positive.  With
    P = Uᵀ dΣ U, eigenvalues and eigenvectors change by

        dλi = P_ii,   dU = U M,   M_ij = P_ij / (λj − λi) for i ≠ j,

    so with A = ∂L/∂W U and W = Λ^(−1/2) Uᵀ,

        ∂L/∂P_ii = −½ λi^(−3/2) A_ii,   ∂L/∂P_ji = λi^(−1/2) A_ij / (λi − λj) for i ≠ j.

    There is no gradient where two eigenvalues coincide, since the axes are arbitrary there.
    """

    def __init__(self, covariance: Array) -> None:
        self._values, vectors = _spectrum(covariance)
        self._vectors = vectors * _signs(vectors)
        self.matrix = transpose(self._vectors) / self._values[..., :, None] ** 0.5

    def backward(self, dmatrix: Array) -> Array:
        """Return ∂L/∂Σ."""
        U, values = self._vectors, self._values[..., :, None]
        xp = namespace(U)
        diagonal = xp.eye(U.shape[-1], dtype=U.dtype)
        gaps = values - transpose(values) + diagonal  # the diagonal is taken care of below
        F = (1.0 - diagonal) / (values**0.5 * gaps) - 0.5 * diagonal / values**1.5
        return _symmetric(U @ transpose(F * (dmatrix @ U)) @ transpose(U))


def root(name: str | None, covariance: Array, eps: float) -> Root:
    """Return the named root of the inverse of `covariance` + εI, (groups, c, c)."""
    xp = namespace(covariance)
    regular = covariance + eps * xp.eye(covariance.shape[-1], dtype=covariance.dtype)
    return PCA(regular) if name == "pca" else ZCA(regular)


class Whitened:
    """Matrices x of shape (groups, c, m) whitened in each group: z, mean, covariance, gradient."""

    def __init__(self, x: Array, scale: Scale, center: bool, eps: float) -> None:
        self.count = x.shape[-1]
        self.mean = namespace(x).mean(x, axis=-1, keepdims=True)
        self._center, self._about_mean = center, scale.origin == "mean"
        self._d = x - self.mean if self._about_mean else x
        self._input = x - self.mean if center else x
        self.covariance = self._d @ transpose(self._d) / self.count
        self._root = root(scale.root, self.covariance, eps)
        self.z = self._root.matrix @ self._input

    def backward(self, dz: Array) -> Array:
        """Return ∂L/∂x from ∂L/∂z: directly and through μ, then through W and Σ = d dᵀ / m."""
        dx = transpose(self._root.matrix) @ dz
        dcovariance = self._root.backward(dz @ transpose(self._input))
        dd = (2.0 / self.count) * dcovariance @ self._d
        dx = less_mean(dx, (-1,)) if self._center else dx
        return dx + (less_mean(dd, (-1,)) if self._about_mean else dd)


class Whitening:
    """z = W (x − μ) for given μ and W, as in evaluation: no gradient through them."""

    def __init__(self, x: Array, mean: Array, matrix: Array) -> None:
        self._matrix = matrix
        self.z = matrix @ (x - mean)

    def backward(self, dz: Array) -> Array:
        """Return ∂L/∂x = Wᵀ ∂L/∂z."""
        return transpose(self._matrix) @ dz


def _symmetric(matrices: Array) -> Array:
    return (matrices + transpose(matrices)) / 2.0


def _spectrum(covariance: Array) -> tuple[Array, Array]:
    """Return eigenvalues (ascending) and eigenvectors; NaN for a group that is not finite.

    NumPy's solver raises on such a group, and the other groups would get nothing either.
    """
    xp = namespace(covariance)
    finite = xp.all(xp.isfinite(covariance), axis=(-2, -1), keepdims=True)
    identity = xp.eye(covariance.shape[-1], dtype=covariance.dtype)
    values, vectors = xp.linalg.eigh(xp.where(finite, covariance, identity))
    nothing = xp.full_like(values, float("nan"))
    return xp.where(finite[..., 0], values, nothing), vectors


def _signs(vectors: Array) -> Array:
    """Return −1 for each eigenvector (column) whose component of largest size is negative."""
    xp = namespace(vectors)
    largest = xp.argmax(abs(vectors), axis=-2, keepdims=True)
    return xp.sign(xp.take_along_axis(vectors, largest, axis=-2))
