"""What the kernels are tried on, and how far from the formula they may be."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from anynorm import kernels
from anynorm.activations import ACTIVATIONS
from anynorm.ops import Epilogue, Statistic, formula, sign_bits

OPERATORS = torch.ops.anynorm
needs_kernels = pytest.mark.skipif(not kernels.available(), reason=str(kernels.why_not()))

# By the number of axes: those of the statistics, and those along which γ and β differ.  Group norm
# has its channels split in two.  No kernel knows the last two.
PATTERNS: dict[str, Callable[[int], tuple[list[int], list[int]]]] = {
    "batch": lambda rank: ([0, *range(2, rank)], [1]),
    "instance": lambda rank: ([*range(2, rank)], [1]),
    "group": lambda rank: ([*range(2, rank)], [1, 2]),
    "last": lambda rank: ([rank - 1], [rank - 1]),
    "last two": lambda rank: ([rank - 2, rank - 1], [rank - 2, rank - 1]),
    "weight": lambda rank: ([*range(1, rank)], [0]),
    "pixel": lambda rank: ([1], [1]),
    "activation": lambda rank: ([0], [*range(1, rank)]),
    "everything": lambda rank: ([*range(rank)], [1]),
    "crossed": lambda rank: ([1, rank - 1], [0, 2]),
}

EPS = 1e-5
# center, about_mean, p and C.
SCALES: dict[str, tuple[bool, bool, float, float]] = {
    "std": (True, True, 2.0, 1.0),
    "rms": (False, False, 2.0, 1.0),
    "l1": (True, True, 1.0, 1.25),
    "linf": (True, True, math.inf, 0.4),
    "centred, by rms": (True, False, 2.0, 0.7),
    "not centred, by std": (False, True, 2.0, 1.0),
    "l1 about zero": (False, False, 1.0, 1.25),
    "linf about zero": (False, False, math.inf, 0.4),
    "l3": (True, True, 3.0, 1.0),  # which no kernel knows
}


def _ordered(x: Tensor, order: list[int]) -> Tensor:
    back = sorted(range(len(order)), key=order.__getitem__)
    return x.permute(order).contiguous().permute(back)


def _offset(x: Tensor) -> Tensor:
    return torch.cat((x.new_full((1,), torch.nan), x.reshape(-1)))[1:].view(x.shape)


# What a kernel must not read is not a number.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "channels last": lambda x: _ordered(x, [0, *range(2, x.dim()), 1]),
    "groups last": lambda x: _ordered(x, [0, *range(3, x.dim()), 1, 2]),
    "reversed": lambda x: _ordered(x, [*reversed(range(x.dim()))]),
    "stepped": lambda x: torch.stack((x, x * torch.nan), -1).flatten(-2)[..., ::2],
    "cut": lambda x: torch.nn.functional.pad(x, (0, 3), value=torch.nan)[..., :-3],
    "expanded": lambda x: x[:1].expand_as(x),
    "offset": _offset,
}


class Case(NamedTuple):
    """An input: its normalizer, shape and layout."""

    pattern: str
    shape: tuple[int, ...]
    layout: str = "contiguous"
    scale: str = "std"

    def __str__(self) -> str:
        return f"{self.pattern} {'x'.join(map(str, self.shape))} {self.layout} {self.scale}"


# One of each way through memory: runs, columns, rows, and what none knows.
WAYS = [
    Case("batch", (3, 5, 19)),
    Case("batch", (5, 17, 2, 3), "channels last"),
    Case("group", (3, 2, 3, 7), "groups last"),
    Case("last", (6, 35)),
    Case("group", (5, 2, 4, 3)),
    Case("crossed", (3, 4, 5)),
]

# Every way through memory, each with values for several threads: few sets and many, long and short.
LONG = [
    Case("batch", (2, 3, 150, 151)),
    Case("batch", (64, 32, 7, 7)),
    Case("batch", (2, 3, 150, 151), "channels last"),
    Case("batch", (4099, 37)),
    Case("instance", (3, 17, 31, 37), "channels last"),
    Case("group", (3, 2, 4, 41, 53)),
    Case("group", (3, 2, 5, 41, 53), "groups last"),
    Case("last", (2, 35_003)),
    Case("last", (1031, 47)),
]


class Draw(NamedTuple):
    """All other arguments.  `affine` names which of γ and β there are."""

    dtype: torch.dtype = torch.float32
    phi: str = "identity"
    added: bool = False
    affine: str = "weight and bias"
    parameters: torch.dtype | None = None  # None: as the input
    beside: str | None = None  # the layout of dy and the residual; None: as the input

    def __str__(self) -> str:
        parts = [str(self.dtype).removeprefix("torch."), self.phi, f"affine {self.affine}"]
        parts += ["added"] if self.added else []
        parts += ["wide"] if self.parameters else []
        return " ".join(parts + ([f"dy {self.beside}"] if self.beside else []))


PLAIN = Draw()
FUSED = Draw(phi="relu", added=True)
AFFINES = ("weight and bias", "weight", "bias", "none")


TENSORS = ("x", "residual", "weight", "bias", "dy")
ALONE = ("mean alone", "square alone")  # by the operator that returns nothing else


class Sample(NamedTuple):
    """The arguments of an operator.  `given` are μ and s², where they are not those of x."""

    x: Tensor
    residual: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    dy: Tensor
    statistic: Statistic
    phi: str
    given: tuple[Tensor, Tensor] | None = None

    def widened(self) -> Sample:
        """The same values in float64, one behind the other."""
        given = self.given and (self.given[0].double(), self.given[1].double())
        tensors = {name: getattr(self, name) for name in TENSORS}
        wide: dict[str, Any] = {
            name: t if t is None else t.double().contiguous() for name, t in tensors.items()
        }
        return self._replace(**wide, given=given)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forward(sample: Sample, suffix: str = "") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, μ, s² and the bits, by an operator or by its formula."""
    x, residual, weight, bias, _, statistic, phi, given = sample
    if given is None:
        operator = getattr(OPERATORS, f"standardize{suffix}")
        y, mean, square, sign_mask = operator(x, residual, weight, bias, *statistic, phi)
        return y, mean, square, sign_mask
    operator = getattr(OPERATORS, f"normalize{suffix}")
    y, sign_mask = operator(x, residual, *given, weight, bias, statistic.eps, phi)
    return y, *given, sign_mask


def backward(
    sample: Sample, mean: Tensor, square: Tensor, sign_mask: Tensor, suffix: str = ""
) -> tuple[Tensor, ...]:
    x, residual, weight, bias, dy, statistic, phi, given = sample
    saved = residual if formula.needs_residual(Epilogue(residual, phi)) else None
    name, rest = ("standardize", statistic) if given is None else ("normalize", (statistic.eps,))
    operator = getattr(OPERATORS, f"{name}_backward{suffix}")
    return tuple(operator(dy, x, saved, sign_mask, mean, square, weight, bias, *rest, phi))


def run(sample: Sample, suffix: str = "") -> dict[str, Tensor]:
    """All outputs and gradients, by an operator or by its formula; and what `moments` returns."""
    y, mean, square, sign_mask = forward(sample, suffix)
    gradients = backward(sample, mean, square, sign_mask, suffix)
    names = ("dx", "dresidual", "dweight", "dbias")
    found = {"y": y, "mean": mean, "square": square, "sign_mask": sign_mask} | dict(
        zip(names, gradients, strict=True)
    )
    if sample.given is None:
        alone = getattr(OPERATORS, f"moments{suffix}")(sample.x, *sample.statistic[:-1])
        found |= dict(zip(ALONE, alone, strict=True))
    return found


def make(case: Case, draw: Draw = PLAIN, given: bool = False) -> Sample:
    """Random arguments, the same at every call; no value lies where a derivative jumps."""
    generator = torch.Generator().manual_seed(0)
    dims, along = PATTERNS[case.pattern](len(case.shape))

    def normal(*shape: int, dtype: torch.dtype = draw.dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def parameter(name: str) -> Tensor | None:
        shape = [size if axis in along else 1 for axis, size in enumerate(case.shape)]
        drawn = normal(*shape, dtype=draw.parameters or draw.dtype)
        return drawn if name in draw.affine else None

    statistic = Statistic(dims, *SCALES[case.scale], EPS)
    x = LAYOUTS[case.layout](_off_kinks(1.5 * normal(*case.shape) + 0.5, statistic))
    weight, bias = parameter("weight"), parameter("bias")
    beside = LAYOUTS[draw.beside or ("contiguous" if case.layout == "expanded" else case.layout)]
    residual = beside(normal(*case.shape)) if draw.added else None
    dy = normal(*case.shape)
    sample = Sample(x, residual, weight, bias, dy, statistic, draw.phi)
    if given:
        shape = [1 if axis in dims else size for axis, size in enumerate(case.shape)]
        mean, square = (normal(*shape, dtype=formula.widen(x).dtype) for _ in "ab")
        sample = sample._replace(given=(mean, square.square() + 0.1))
    if ACTIVATIONS[draw.phi].jumps:
        dy = dy.masked_fill(near_jump(sample)[0], 0.0)
    return sample._replace(dy=beside(dy))


def _off_kinks(x: Tensor, statistic: Statistic) -> Tensor:
    """Where a derivative of the scale jumps there are no values.

    That of L1 does at zero deviation: values near it are moved.  That of L∞ does where two
    deviations are the largest: one in each set is made larger than all others.
    """
    dims = statistic.dims
    if math.isinf(statistic.p):
        middle = [
            slice(s // 2, s // 2 + 1) if a in dims else slice(s) for a, s in enumerate(x.shape)
        ]
        x[tuple(middle)] = 11.0
    while statistic.p == 1 and math.prod(x.shape[dim] for dim in dims) > 1:
        origin = x.double().mean(dims, keepdim=True) if statistic.about_mean else 0.0
        near = (x - origin).abs() < 1e-3
        if not near.any():
            break
        x = torch.where(near, x + 0.05, x)
    return x


def near_jump(sample: Sample) -> tuple[Tensor, Tensor]:
    """Where rounding may move z, what φ is applied to, across a jump of φ'; and z."""
    plain = sample._replace(phi="identity")
    z, mean, square, _ = forward(plain.widened(), "_formula")
    off = _Magnitudes(plain, mean, square).allowed(z, "y", sample.x.dtype)
    jumps = ACTIVATIONS[sample.phi].jumps
    return torch.stack([(z - jump).abs() <= off for jump in jumps]).any(0), z


def kept_bits(sample: Sample, sign_mask: Tensor) -> Tensor:
    return sign_bits.unpack(sign_mask, sample.x)


class _Magnitudes:
    """How far off an output may be: roundings times the sum of the magnitudes of its terms.

    Each term goes through a handful of roundings of the working type, float32 for 16-bit values.
    Sums add some more: implementations cut them into pieces, so that an error grows with the
    logarithm of the number of values rather than with the number.  Last comes the rounding of the
    result to its own type, by half a unit of its last digit.  The terms are those of:

        z  = γ (x − μ) / σ + β + residual
        dz = φ'(z) dy,  of which z's error passes on through φ'' (|φ''| <= 1)
             φ and φ' are made of numbers of order one where they are not linear
        dx = (g − mean(g) − (Σ g u) · s/σ · ∂s/∂d) / σ,  for g = γ dz, u = (x − μ) / σ
    """

    def __init__(self, sample: Sample, mean: Tensor, square: Tensor) -> None:
        wide = sample.widened()
        x, dims, self.statistic = wide.x, wide.statistic.dims, wide.statistic
        given = sample.given is not None
        self.dims, self.count = dims, math.prod(x.shape[dim] for dim in dims)
        self.work = torch.finfo(formula.widen(sample.x).dtype).eps
        self.roundings = 4 + math.log2(max(self.count, 1))
        self.square, inverse = square, torch.rsqrt(square + EPS)
        self.largest = x.abs().amax(dims, keepdim=True)
        unit = 1 + ((x - mean).abs() + x.abs()) * inverse
        weight = 1.0 if wide.weight is None else wide.weight.abs()
        added = [t.abs() for t in (wide.bias, wide.residual) if t is not None]
        z = sum(added, weight * unit)
        phi = ACTIVATIONS[sample.phi]
        linear = phi.by_sign or sample.phi == "identity"
        dz = wide.dy.abs() * (phi.steepest + z)
        g = weight * dz
        around = 0.0 if given else g.mean(dims, keepdim=True) + self._of_scale(x, g * unit, inverse)
        self.terms = {
            "y": z if linear else phi.steepest * z + 1,
            "mean": (x - mean).abs().amax(dims, keepdim=True),
            # Twice the relative error of s, of sums that are seen from a point a deviation off.
            "square": 4 * square,
            "dx": inverse * (g + around),
            "dresidual": dz,
            "dweight": self._like(wide.weight, dz * unit),
            "dbias": self._like(wide.bias, dz),
        }

    def _of_scale(self, x: Tensor, product: Tensor, inverse: Tensor) -> Tensor:
        """(Σ g u) · s/σ · (∂s/∂d + its mean)."""
        _, _, about_mean, p, factor, _ = self.statistic
        d = (x - x.mean(self.dims, keepdim=True) if about_mean else x).abs()
        s = self.square.sqrt().clamp_min(1e-150)
        if math.isinf(p):
            slope = factor * (d == d.amax(self.dims, keepdim=True))
        else:
            slope = factor / self.count * (factor * (d + s) / s).pow(p - 1)
        slope = slope + slope.mean(self.dims, keepdim=True)
        return product.sum(self.dims, keepdim=True) * s * inverse * slope

    @staticmethod
    def _like(parameter: Tensor | None, terms: Tensor) -> Tensor | None:
        return None if parameter is None else terms.sum_to_size(parameter.shape)

    def allowed(
        self, truth: Tensor, name: str, dtype: torch.dtype, last_digit: float = 0.5
    ) -> Tensor:
        terms = self.terms[name.removesuffix(" alone")]
        if terms is None or not truth.numel():
            return truth
        bound = self.roundings * self.work * terms
        # Also the truth is no better than float64: of equal values it may say that they differ.
        fuzz = self.roundings * torch.finfo(torch.float64).eps * self.largest
        if name in ("mean", "square", *ALONE):
            return bound + (fuzz if name.startswith("mean") else fuzz.square())
        if dtype in (torch.float32, torch.float64):
            return bound
        info = torch.finfo(dtype)
        return bound + info.eps * last_digit * truth.abs() + info.smallest_normal * info.eps


def check(sample: Sample, found: dict[str, Tensor] | None = None, last_digit: float = 0.5) -> float:
    """All outputs and gradients are the formula's; return the largest part of what is allowed.

    `last_digit`: how much of a 16-bit result's last digit rounding may change.
    """
    found = run(sample) if found is None else found
    truth = run(sample.widened(), "_formula")
    magnitudes = _Magnitudes(sample, truth["mean"], truth["square"])
    used = 0.0
    _check_form(sample, found, truth)
    for name, value in found.items():
        if name != "sign_mask" and value.numel():
            away = (value.double() - truth[name]).abs()
            part = away / magnitudes.allowed(truth[name], name, value.dtype, last_digit)
            worst = float(torch.where(away == 0, 0.0, part).nan_to_num(math.inf).max())
            assert worst <= 1, f"{name} is {worst:.3g} times as far off as allowed"
            used = max(used, worst)
    _check_bits(sample, found["sign_mask"])
    return used


def _check_form(sample: Sample, found: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    """Types, shapes and strides are what compiled graphs are told."""
    x, parameters = sample.x, {"dweight": sample.weight, "dbias": sample.bias}
    for name, value in found.items():
        assert value.shape == truth[name].shape, name
        if name in ("y", "dx") or (name == "dresidual" and value.numel()):
            assert value.dtype == x.dtype
            assert value.stride() == torch.empty_like(x).stride(), name
        parameter = parameters.get(name)
        if parameter is not None:
            assert value.dtype == parameter.dtype
            assert value.is_contiguous()
        if name in (*ALONE, *(("mean", "square") if sample.given is None else ())):
            assert value.dtype == torch.float64


def _check_bits(sample: Sample, sign_mask: Tensor) -> None:
    assert sign_mask.dtype == torch.uint8
    if sign_mask.numel():
        near, z = near_jump(sample)
        assert torch.equal(kept_bits(sample, sign_mask) | near, (z > 0) | near)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether all bits that mean something are the same."""
    spare = {"sign_mask": slice(0, -8)}
    return all(
        torch.equal(one[name][spare.get(name, ...)], other[name][spare.get(name, ...)])
        for name in one
    )


PHIS = tuple(ACTIVATIONS)
