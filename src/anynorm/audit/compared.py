"""Compare the tensors of a file with those of a checkpoint: as they are, or folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from anynorm.audit.folds import PRODUCTS
from anynorm.audit.program import Op, Program
from anynorm.surgery.affine import Affine
from anynorm.surgery.folding.weighted import mapped_inputs
from anynorm.surgery.streaming_stats import double

__all__ = ["Compared", "Foldable", "batch_norms", "compared", "differs", "gains"]

_ROUNDINGS = 8  # a folded weight is rounded at each of several steps
# Those that libraries use; the right one gives the weights that are in the file.
_USUAL_EPS = (1e-5, 1e-3, 1e-4, 1e-6, 1e-12, 0.0)


def differs(here: Tensor, there: Tensor) -> Tensor | None:
    """Which values differ by more than the rounding to the coarser type; None for other shapes.

    >>> differs(torch.ones(2), torch.tensor([1.0, 2.0]))
    tensor([False,  True])
    """
    if here.shape != there.shape:
        return None
    limits = _coarser(here, there)
    return ~torch.isclose(
        double(here),
        double(there),
        rtol=_ROUNDINGS * limits.eps,
        atol=limits.smallest_normal * limits.eps,
        equal_nan=True,
    )


def _coarser(here: Tensor, there: Tensor) -> torch.finfo:
    types = [torch.finfo(t.dtype) for t in (here, there) if t.is_floating_point()]
    return max(types, key=lambda one: one.eps, default=torch.finfo(torch.float32))


@dataclass(frozen=True)
class Foldable:
    """What can be folded of a normalizer of a checkpoint: a map a · x + b for each channel.

    It is a whole batch norm, or γ and β of another normalizer.
    """

    layer: str
    affine: Affine
    whole: bool

    @property
    def a(self) -> Tensor:
        """The factor of each channel."""
        return self.affine.a


Foldables = Mapping[str, Sequence[Foldable]]


def gains(state: Mapping[str, Tensor], offsets: Mapping[str, float]) -> dict[str, list[Foldable]]:
    """γ and β of the normalizers of a program that are not batch norms, by their names.

    `offsets` has their names, and what is added to the stored γ of each.
    """
    found: dict[str, list[Foldable]] = {}
    for layer, offset in offsets.items():
        gain = state.get(_joined(layer, "weight"))
        if gain is None or _joined(layer, "running_var") in state:
            continue
        a = double(gain).flatten() + offset
        b = state.get(_joined(layer, "bias"), torch.zeros(()))
        found[layer] = [Foldable(layer, Affine(a, double(b).flatten().expand_as(a)), whole=False)]
    return found


def batch_norms(
    state: Mapping[str, Tensor], eps: Mapping[str, float | None]
) -> dict[str, list[Foldable]]:
    """The batch norms of a checkpoint by their names; one map for each ε that it may have."""
    found: dict[str, list[Foldable]] = {}
    for name, variance in state.items():
        layer, _, last = name.rpartition(".")
        mean = state.get(_joined(layer, "running_mean"))
        if last != "running_var" or mean is None:
            continue
        known = eps.get(layer)
        for one in _USUAL_EPS if known is None else (known,):
            a = (double(variance) + one).rsqrt()
            a = a * double(state.get(_joined(layer, "weight"), torch.ones(())))
            b = double(state.get(_joined(layer, "bias"), torch.zeros(()))) - double(mean) * a
            found.setdefault(layer, []).append(Foldable(layer, Affine(a, b), whole=True))
    return found


def _joined(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


@dataclass(frozen=True)
class Compared:
    """How a product's weight relates to the checkpoint's of the same name.

    `kind` is "same", "folded" (once, with the normalizer `fold`), "twice", or "other"; `behind`
    says whether that is on the side of the outputs, as of a batch norm behind a convolution, and
    `bias` whether the bias is the one that belongs to it.
    """

    op: Op
    name: str
    kind: str
    fold: Foldable | None = None
    behind: bool = True
    difference: float = 0.0
    bias: bool = True

    @property
    def layer(self) -> str:
        """The normalizer that is folded in; "" without."""
        return "" if self.fold is None else self.fold.layer


def compared(
    program: Program, state: Mapping[str, Tensor], norms: Foldables
) -> tuple[list[Compared], list[Op]]:
    """Compare the weights of all products; the second list has those that could not be."""
    found: list[Compared] = []
    left: list[Op] = []
    for op in program.ops:
        if op.kind not in PRODUCTS or program.stored(op.args.get("weight")) is None:
            continue
        weight = program.tensor(op.args.get("weight"))
        one = None if weight is None else _compared(op, weight, program, state, norms)
        if one is None:
            left.append(op)
        else:
            found.append(one)
    return found, left


def _compared(
    op: Op,
    weight: Tensor,
    program: Program,
    state: Mapping[str, Tensor],
    norms: Foldables,
) -> Compared | None:
    own = program.name_of(op.args.get("weight"))
    names = [own] if own in state else [n for n, t in state.items() if _alike(weight, t)]
    best: Compared | None = None
    for name in names:
        # Linear layers are also stored transposed.
        for here in (weight, weight.mT) if op.kind == "linear" else (weight,):
            if here.shape != state[name].shape:
                continue
            one = _related(op, name, here, state[name], norms)
            if one.kind != "other":
                bias = program.tensor(op.args.get("bias"))
                return _with_bias(one, bias, state, norms)
            best = best or one
    # A weight under another name that is like none of the checkpoint's cannot be compared.
    return best if own in state else None


def _alike(weight: Tensor, there: Tensor) -> bool:
    if weight.dim() < 2 or weight.dim() != there.dim() or not there.is_floating_point():
        return False
    return bool(weight.shape == there.shape or weight.mT.shape == there.shape)


def _related(op: Op, name: str, here: Tensor, there: Tensor, norms: Foldables) -> Compared:
    wrong = differs(here, there)
    if wrong is not None and not bool(wrong.any()):
        return Compared(op, name, "same")
    tolerance = _ROUNDINGS * _coarser(here, there).eps
    for behind, side in enumerate(_sides(op, here)):
        factor = _factor(side(here), side(there), tolerance)
        if factor is None:
            continue
        for norm in (one for several in norms.values() for one in several):
            if len(norm.a) != len(factor) or (behind and not norm.whole):
                continue
            for kind, expected in (("folded", norm.a), ("twice", norm.a.square())):
                if _same_factors(factor, expected, tolerance):
                    return Compared(op, name, kind, norm, bool(behind))
    size = double(there).norm().clamp_min(1e-30)
    return Compared(
        op, name, "other", difference=float((double(here) - double(there)).norm() / size)
    )


def _same_factors(factor: Tensor, expected: Tensor, tolerance: float) -> bool:
    known = factor.isfinite()  # a channel of zeros says nothing
    return bool(known.any()) and bool(
        torch.isclose(factor[known], expected[known], rtol=tolerance, atol=0.0).all()
    )


def _factor(here: Tensor, there: Tensor, tolerance: float) -> Tensor | None:
    """The factor of each row between two matrices; None if the rows are no multiples."""
    factor = (here * there).sum(1) / there.square().sum(1)
    off = (here - factor.nan_to_num()[:, None] * there).abs()
    bound = tolerance * here.abs().amax(1, keepdim=True)
    return factor if bool((off <= bound + 1e-30).all()) else None


def _sides(op: Op, weight: Tensor) -> Iterator[Any]:
    """Functions that bring a weight into one row for each input, then for each output."""
    groups = int(op.args.get("groups") or 1)

    def by_first(x: Tensor) -> Tensor:
        return double(x).flatten(1)

    def by_second(x: Tensor) -> Tensor:
        grouped = double(x).reshape(groups, len(x) // groups, *x.shape[1:]).transpose(1, 2)
        return grouped.flatten(0, 1).flatten(1)

    if weight.dim() >= 2 and len(weight) % groups == 0:
        yield from (by_first, by_second) if op.kind == "conv_transpose" else (by_second, by_first)


def _with_bias(
    one: Compared, bias: Tensor | None, state: Mapping[str, Tensor], norms: Foldables
) -> Compared:
    """Compare the bias too, where the weight says which it should be."""
    before = state.get(f"{one.name.removesuffix('weight')}bias")
    if bias is None or one.kind not in ("same", "folded") or (one.fold is None and before is None):
        return one
    old = torch.zeros(()) if before is None else double(before)
    maps = [] if one.fold is None else norms[one.layer]  # one for each ε, of which all may fit
    expected = (
        [old + _shift(one, fold, state) for fold in maps]
        if one.behind is False
        else [old * fold.a + fold.affine.b for fold in maps]
    )
    near = any(_near(bias, value) for value in expected or [old])
    return one if near else replace(one, bias=False)


def _shift(one: Compared, fold: Foldable, state: Mapping[str, Tensor]) -> Tensor:
    """What a map in front of a product adds to its outputs."""
    groups = int(one.op.args.get("groups") or 1)
    return mapped_inputs(double(state[one.name]), fold.affine, groups)[1]


def _near(bias: Tensor, expected: Tensor) -> bool:
    """Whether two biases are the same up to the rounding of their largest terms."""
    if bias.shape != expected.shape:
        return False
    limit = 64 * torch.finfo(bias.dtype).eps * expected.abs().max().clamp_min(1e-6)
    return bool(((double(bias) - double(expected)).abs() <= limit).all())
