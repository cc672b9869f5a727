"""Compare the tensors of a file with those of a checkpoint: as they are, or folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from anynorm.audit.foldable import Foldable, Foldables
from anynorm.audit.folds import PRODUCTS
from anynorm.audit.program import Op, Program
from anynorm.surgery.folding.weighted import mapped_inputs
from anynorm.surgery.streaming_stats import double

__all__ = ["Compared", "compared", "differs"]

_ROUNDINGS = 8  # a folded weight is rounded at each of several steps
_PARALLEL = 0.999


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
class Compared:
    """How a product's weight relates to the checkpoint's of the same name.

    `kind` is "same", "folded" (once), "twice", or "other".  `front` is the normalizer in front of
    the product that is folded in, `behind` the one behind it; `bias` says whether the bias is the
    one that belongs to them.
    """

    op: Op
    name: str
    kind: str
    front: Foldable | None = None
    behind: Foldable | None = None
    difference: float = 0.0
    bias: bool = True

    @property
    def layers(self) -> tuple[str, ...]:
        """The normalizers that are folded in."""
        return tuple(one.layer for one in (self.front, self.behind) if one is not None)


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
    names = [own] if own in state else [n for n, t in state.items() if t.is_floating_point()]
    bias = program.tensor(op.args.get("bias"))
    pairs = [(name, *pair) for name in names for pair in _views(op, weight, state[name])]
    if own not in state:
        pairs = [one for one in pairs if _may_be(op, *one[1:])]
    for name, here, there in pairs:
        found = list(_relations(op, name, here, there, norms))
        fitting = (one for one in found if _bias_fits(one, there, bias, state))
        if found:
            return next(fitting, replace(found[0], bias=False))
    # A weight under another name that is like none of the checkpoint's cannot be compared.
    return _other(op, *pairs[0]) if own in state and pairs else None


def _views(op: Op, here: Tensor, there: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both weights with the outputs first; linear layers are also stored with the inputs first."""
    pairs = [(here, there)] if here.dim() > 1 else []
    if op.kind == "linear" and here.dim() == there.dim() == 2:
        pairs += [(here.mT, there), (here.mT, there.mT), (here, there.mT)]
    yield from (pair for pair in pairs if pair[0].shape == pair[1].shape)


def _other(op: Op, name: str, here: Tensor, there: Tensor) -> Compared:
    apart = (double(here) - double(there)).norm() / double(there).norm().clamp_min(1e-30)
    return Compared(op, name, "other", difference=float(apart))


def _may_be(op: Op, here: Tensor, there: Tensor) -> bool:
    """Whether two weights have parallel first rows or columns; to compare all would take long."""
    if not here.numel():
        return False
    size = len(here) // _groups(op, here)
    here, there = here[:size], there[:size]  # each group has inputs and outputs of its own
    return _parallel(here[0], there[0]) or _parallel(here[:, 0], there[:, 0])


def _groups(op: Op, weight: Tensor) -> int:
    """The groups of a product; 1 if the file is broken."""
    groups = op.args.get("groups", 1)
    return groups if isinstance(groups, int) and groups > 0 and not len(weight) % groups else 1


def _parallel(one: Tensor, other: Tensor) -> bool:
    cosine = cosine_similarity(double(one).flatten(), double(other).flatten(), dim=0)
    return abs(float(cosine)) > _PARALLEL


def _relations(
    op: Op, name: str, here: Tensor, there: Tensor, norms: Foldables
) -> Iterator[Compared]:
    """Every way in which a weight may come from that of the checkpoint, the simplest first."""
    wrong = differs(here, there)
    if wrong is not None and not bool(wrong.any()):
        yield Compared(op, name, "same")
        return
    every = [one for several in norms.values() for one in several]
    rows = _Rows(op, _groups(op, here), _ROUNDINGS * _coarser(here, there).eps)
    found = list(rows.folded(name, here, double(there), every))
    yield from found
    if found or op.kind == "conv_transpose":
        return
    inputs = rows.by_input(there)
    for front in (one for one in every if one.a.numel() == len(inputs)):
        mapped, _ = mapped_inputs(double(there), front.affine, rows.groups)
        for one in rows.folded(name, here, mapped, every):
            if one.behind is not None:
                yield replace(one, front=front)


@dataclass(frozen=True)
class _Rows:
    """The weight of a product with a row for each input, or for each output."""

    op: Op
    groups: int
    tolerance: float

    def by_input(self, weight: Tensor) -> Tensor:
        transposed = self.op.kind == "conv_transpose"
        return self._by_first(weight) if transposed else self._by_second(weight)

    def by_output(self, weight: Tensor) -> Tensor:
        transposed = self.op.kind == "conv_transpose"
        return self._by_second(weight) if transposed else self._by_first(weight)

    def _by_first(self, weight: Tensor) -> Tensor:
        return double(weight).flatten(1)

    def _by_second(self, weight: Tensor) -> Tensor:
        size = len(weight) // self.groups
        grouped = double(weight).reshape(self.groups, size, *weight.shape[1:])
        return grouped.transpose(1, 2).flatten(0, 1).flatten(1)

    def folded(
        self, name: str, here: Tensor, there: Tensor, every: Sequence[Foldable]
    ) -> Iterator[Compared]:
        """The normalizers that explain the factor between two weights, behind and in front."""
        behind = _factor(self.by_output(here), self.by_output(there), self.tolerance)
        front = _factor(self.by_input(here), self.by_input(there), self.tolerance)
        for norm in every:
            # γ and β alone stand in front of what they are folded into.
            if norm.whole and (kind := _kind(behind, norm.a, self.tolerance)):
                yield Compared(self.op, name, kind, behind=norm)
            if kind := _kind(front, norm.a, self.tolerance):
                yield Compared(self.op, name, kind, front=norm)


def _kind(factor: Tensor | None, a: Tensor, tolerance: float) -> str:
    """Whether factors are those of a map, or their squares; "" for others."""
    if factor is None or len(factor) != len(a):
        return ""
    if _same_factors(factor, a, tolerance):
        return "folded"
    return "twice" if _same_factors(factor, a.square(), tolerance) else ""


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


def _bias_fits(
    one: Compared, weight: Tensor, bias: Tensor | None, state: Mapping[str, Tensor]
) -> bool:
    """Whether the bias is the checkpoint's, with the normalizers that the weight has folded in."""
    before = state.get(f"{one.name.removesuffix('weight')}bias")
    if bias is None or one.kind not in ("same", "folded") or not (one.layers or before is not None):
        return True
    expected = torch.zeros(()) if before is None else double(before)
    if one.front is not None and one.op.kind == "conv_transpose":
        return True  # what it adds differs from place to place
    if one.front is not None:
        groups = _groups(one.op, weight)
        expected = expected + mapped_inputs(double(weight), one.front.affine, groups)[1]
    if one.behind is not None:
        expected = expected * one.behind.a + one.behind.affine.b
    return _near(bias, expected)


def _near(bias: Tensor, expected: Tensor) -> bool:
    """Whether two biases are the same up to the rounding of their largest terms."""
    if bias.shape != expected.shape:
        return False
    limit = 64 * torch.finfo(bias.dtype).eps * expected.abs().max().clamp_min(1e-6)
    return bool(((double(bias) - double(expected)).abs() <= limit).all())
