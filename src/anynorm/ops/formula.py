"""The formula over axes in plain PyTorch, forward and backward: the fallback of every device.

Each function is differentiable by PyTorch itself, which is how the operators get their second
derivatives.  Values are float32 for 16-bit inputs.  Statistics are float64: the mean of values
that lie far from zero has more digits than they have, and is subtracted in two parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anynorm.activations import ACTIVATIONS
from anynorm.ops import sign_bits
from anynorm.ops.types import Affine, Epilogue, Saved, Statistic

__all__ = [
    "SIXTEEN_BITS",
    "Gradients",
    "accurate",
    "backward",
    "deviations",
    "forward",
    "gives_residual",
    "keeps_bits",
    "moments",
    "needs_residual",
    "normalize",
    "normalize_backward",
    "reduced_shape",
    "scale_gradient",
    "widen",
    "working",
]

SIXTEEN_BITS = (torch.float16, torch.bfloat16)

# The gradients of x, residual, γ and β.  Empty: those of γ and β where there are none, that of the
# residual where there is none and where it is dy.
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


def forward(
    x: Tensor, affine: Affine, statistic: Statistic, epilogue: Epilogue
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h = φ(γ · (x − μ) / σ + β + residual), μ, s² and the bits that backward needs.

    μ and s² keep the reduced axes at size 1.
    """
    mean, square, d = _measure(widen(x), statistic)
    y, sign_mask = _output(x, d * _inverse(square, statistic.eps).to(d.dtype), affine, epilogue)
    return y, mean, square, sign_mask


def moments(x: Tensor, statistic: Statistic) -> tuple[Tensor, Tensor]:
    """Return μ (zeros where nothing is subtracted) and s², the square of the measured scale."""
    return _measure(widen(x), statistic)[:2]


def _measure(x: Tensor, statistic: Statistic) -> tuple[Tensor, Tensor, Tensor]:
    """Return μ, s² and x − μ."""
    dims = statistic.dims
    mean, away = None, x
    if statistic.center or statistic.about_mean:
        mean, away = _centred(x, dims)
    d = away if statistic.about_mean else x
    square = _squared_norm(d, dims, statistic.p) * statistic.factor**2
    if mean is None or not statistic.center:
        return torch.zeros_like(square), square, x
    return mean, square, away


def _squared_norm(d: Tensor, dims: list[int], p: float) -> Tensor:
    """(mean |d|^p)^(2/p)."""
    if p == 2:
        return _accurate(d.square().mean(dims, keepdim=True))
    if math.isinf(p):
        return _accurate(d.abs().amax(dims, keepdim=True)).square()
    if p == 1:
        return _accurate(d.abs().mean(dims, keepdim=True)).square()
    return _accurate(d.abs().pow(p).mean(dims, keepdim=True)).pow(2.0 / p)


def normalize(
    x: Tensor, mean: Tensor, square: Tensor, affine: Affine, eps: float, epilogue: Epilogue
) -> tuple[Tensor, Tensor]:
    """Return h for given μ and s², and the bits that backward needs."""
    return _output(x, _unit(widen(x), mean, square, eps), affine, epilogue)


def _output(x: Tensor, unit: Tensor, affine: Affine, epilogue: Epilogue) -> tuple[Tensor, Tensor]:
    """Return h in the type of x for the unit values, and the bits that backward needs."""
    z = _before_phi(unit, affine, epilogue.residual)
    # Not a number counts as positive, so that it is passed on.
    sign_mask = (
        sign_bits.pack(~(z <= 0), x) if keeps_bits(epilogue) else sign_bits.fake(x, kept=False)
    )
    return ACTIVATIONS[epilogue.phi].forward(z).to(x.dtype), sign_mask


def keeps_bits(epilogue: Epilogue) -> bool:
    """Whether backward gets one bit for each value."""
    return epilogue.residual is not None and ACTIVATIONS[epilogue.phi].by_sign


def needs_residual(epilogue: Epilogue) -> bool:
    """Whether backward gets the residual itself."""
    active = epilogue.residual is not None and epilogue.phi != "identity"
    return active and not ACTIVATIONS[epilogue.phi].by_sign


def gives_residual(residual: Tensor | None, sign_mask: Tensor, phi: str) -> bool:
    """Whether backward returns a gradient of the residual; without φ it is dy itself."""
    return phi != "identity" and (residual is not None or sign_mask.numel() > 0)


def backward(dy: Tensor, saved: Saved, statistic: Statistic, phi: str) -> Gradients:
    """Return the gradients, from what the forward left."""
    x, inverse = widen(saved.x), _inverse(saved.square, statistic.eps)
    away = deviations(x, saved.mean) if statistic.center else x
    unit = away * inverse.to(x.dtype)
    dz, g = _through_output(dy, unit, saved, phi)
    if statistic.center == statistic.about_mean:
        measured = away
    else:  # where only the scale is about the mean, the mean was not saved
        measured = _centred(x, statistic.dims)[1] if statistic.about_mean else x
    dx = _through_statistics(g, unit, measured, saved.square, inverse, statistic)
    return dx.to(saved.x.dtype), *_beside(dz, unit, saved, phi)


def normalize_backward(dy: Tensor, saved: Saved, eps: float, phi: str) -> Gradients:
    """Return what :func:`backward` does, for μ and s² that do not depend on x."""
    unit = _unit(widen(saved.x), saved.mean, saved.square, eps)
    dz, g = _through_output(dy, unit, saved, phi)
    dx = g * _inverse(saved.square, eps).to(g.dtype)
    return dx.to(saved.x.dtype), *_beside(dz, unit, saved, phi)


def _through_output(dy: Tensor, unit: Tensor, saved: Saved, phi: str) -> tuple[Tensor, Tensor]:
    """The gradients of what φ was applied to, and of the unit values."""
    dz = _through_phi(widen(dy), unit, saved, phi)
    return dz, dz if saved.weight is None else dz * saved.weight


def _inverse(square: Tensor, eps: float) -> Tensor:
    """1 / σ."""
    return torch.rsqrt(square + eps)


def _unit(x: Tensor, mean: Tensor, square: Tensor, eps: float) -> Tensor:
    """(x − μ) / σ.  What μ has beside its nearest number of the type of x enters last."""
    inverse = _inverse(square, eps)
    high = mean.to(x.dtype)
    rest = (high - mean) * inverse
    return torch.addcmul(rest.to(x.dtype), x - high, inverse.to(x.dtype))


def _before_phi(unit: Tensor, affine: Affine, residual: Tensor | None) -> Tensor:
    z = unit if affine.weight is None else unit * affine.weight
    z = z if affine.bias is None else z + affine.bias
    return z if residual is None else z + residual


def _through_phi(dy: Tensor, unit: Tensor, saved: Saved, phi: str) -> Tensor:
    """The gradient of what φ was applied to."""
    if phi == "identity":
        return dy
    if saved.sign_mask.numel():
        z = sign_bits.unpack(saved.sign_mask, saved.x).to(dy.dtype)  # of the same sign
    else:
        z = _before_phi(unit, Affine(saved.weight, saved.bias), saved.residual)
    return ACTIVATIONS[phi].backward(dy, z)


def _beside(dz: Tensor, unit: Tensor, saved: Saved, phi: str) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of residual, γ and β."""
    x, residual, sign_mask, _, _, weight, bias = saved
    return (
        dz.to(x.dtype) if gives_residual(residual, sign_mask, phi) else x.new_empty(0),
        x.new_empty(0) if weight is None else _sum_like(dz * unit, weight),
        x.new_empty(0) if bias is None else _sum_like(dz, bias),
    )


def _through_statistics(
    g: Tensor,
    unit: Tensor,
    measured: Tensor,
    square: Tensor,
    inverse: Tensor,
    statistic: Statistic,
) -> Tensor:
    """The gradient of x from that of the unit values, through the values, σ and μ.

    `measured` is what the scale was measured of.
    """
    dims = statistic.dims
    dsigma = -(g * unit).sum(dims, keepdim=True) * inverse
    via_sigma = scale_gradient(dsigma * inverse, measured, square, statistic)
    direct = g * inverse.to(g.dtype)
    if statistic.center and statistic.about_mean:
        return _less_mean(direct + via_sigma, dims)
    direct = _less_mean(direct, dims) if statistic.center else direct
    return direct + (_less_mean(via_sigma, dims) if statistic.about_mean else via_sigma)


def scale_gradient(
    ds: Tensor,
    d: Tensor,
    square: Tensor,
    statistic: Statistic,
    largest: Tensor | None = None,
    count: float | None = None,
) -> Tensor:
    """Return `ds` times s · ∂s/∂d for s = C · (mean |d|^p)^(1/p), of the values `d` at hand.

    Where they are a part of all values: the `largest` of all |d| is given for p = ∞, and `count`
    is what to divide by, in place of the number of values (for p = ∞, of those that are largest).
    """
    dims, p, factor = statistic.dims, statistic.p, statistic.factor
    if math.isinf(p):
        magnitude = d.abs()
        top = magnitude.amax(dims, keepdim=True) if largest is None else largest
        at_top = magnitude == top
        number = at_top.sum(dims, keepdim=True) if count is None else count
        share = ds * square.sqrt() * factor / number
        return at_top * share.to(d.dtype) * d.sign()
    if count is None:
        count = math.prod(d.shape[dim] for dim in dims)
    if p == 2:
        return d * (ds * (factor**2 / count)).to(d.dtype)
    share = (ds * square.sqrt() * (factor / count)).to(d.dtype)
    if p == 1:
        return d.sign() * share
    # C^p s^(2−p) |d|^(p−1) as s · C · (C|d|/s)^(p−1), which neither over- nor underflows.
    scale = torch.where(square > 0, square, 1).sqrt()
    relative = (d.abs() * (factor / scale).to(d.dtype)).pow(p - 1)
    return relative * d.sign() * share


def deviations(x: Tensor, mean: Tensor) -> Tensor:
    """Return x − mean, where the mean has more digits than x."""
    high = mean.to(x.dtype)
    return x - high - (mean - high).to(x.dtype)


def _centred(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """The mean, which a second round corrects for the rounding of the first, and x less it."""
    first = x.mean(dims, keepdim=True)
    away = x - first
    rest = away.mean(dims, keepdim=True)
    return _accurate(first) + rest, away - rest


def _less_mean(x: Tensor, dims: list[int]) -> Tensor:
    """x − mean(x), which is also the derivative of that map."""
    return x - x.mean(dims, keepdim=True)


def widen(x: Tensor) -> Tensor:
    """Return `x` in the type of the values at work."""
    return x.to(working(x))


def working(x: Tensor) -> torch.dtype:
    """Return the type of the values at work: at least float32."""
    return torch.float32 if x.dtype in SIXTEEN_BITS else x.dtype


def reduced_shape(shape: Sequence[int], dims: Sequence[int]) -> list[int]:
    """Return the shape of statistics over `dims`, which have size 1 in them."""
    return [1 if axis in dims else size for axis, size in enumerate(shape)]


def accurate(x: Tensor) -> torch.dtype:
    """Return the type of statistics: float64, where the device has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _accurate(statistic: Tensor) -> Tensor:
    return statistic.to(accurate(statistic))


def _sum_like(grad: Tensor, parameter: Tensor) -> Tensor:
    return grad.sum_to_size(parameter.shape).to(parameter.dtype).contiguous()
