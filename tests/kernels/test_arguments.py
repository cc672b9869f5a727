"""Arguments that do not fit: the operators raise, or do what the formula does; they never crash.

Nobody calls the operators like this but by mistake: the functions above check what users pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from samples import LAYOUTS, OPERATORS, Case, Draw, make, needs_kernels
from torch import Tensor

from anynorm.ops import Epilogue, Statistic, formula

pytestmark = needs_kernels

Arguments = dict[str, Any]
Spoil = Callable[[Arguments], None]
# What torch's own operators and the formula raise.
REFUSALS = (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
CASES = [
    Case("batch", (4, 3, 8)),
    Case("batch", (4, 8, 3), "channels last"),
    Case("group", (4, 2, 3, 8)),
    Case("last", (4, 9)),
]
DRAWS = [Draw(phi="relu", added=True), Draw(phi="silu", added=True), Draw()]


class Names(NamedTuple):
    operator: str
    order: tuple[str, ...]


_STATISTIC = ("dims", "center", "about_mean", "p", "factor", "eps", "phi")
_SAVED = ("dy", "x", "saved", "sign_mask", "mean", "square", "weight", "bias")
STANDARDIZE = Names("standardize", ("x", "residual", "weight", "bias", *_STATISTIC))
STANDARDIZE_BACKWARD = Names("standardize_backward", (*_SAVED, *_STATISTIC))
NORMALIZE = Names("normalize", ("x", "residual", "mean", "square", "weight", "bias", "eps", "phi"))
NORMALIZE_BACKWARD = Names("normalize_backward", (*_SAVED, "eps", "phi"))
MOMENTS = Names("moments", ("x", *_STATISTIC[:-2]))
ALL = (STANDARDIZE, STANDARDIZE_BACKWARD, NORMALIZE, NORMALIZE_BACKWARD, MOMENTS)
WITH_AXES = (STANDARDIZE, STANDARDIZE_BACKWARD, MOMENTS)


def arguments(case: Case, draw: Draw) -> Arguments:
    """Whatever an operator takes, by name."""
    sample = make(case, draw)
    found = sample._asdict() | sample.statistic._asdict()
    formula_of = OPERATORS.standardize_formula
    _, mean, square, sign_mask = formula_of(*(found[name] for name in STANDARDIZE.order))
    needed = formula.needs_residual(Epilogue(sample.residual, sample.phi))
    saved = sample.residual if needed else None
    return found | {"mean": mean, "square": square, "sign_mask": sign_mask, "saved": saved}


def outcome(operator: Any, args: list[Any]) -> tuple[Tensor, ...] | None:
    """What an operator returns; None where it refuses."""
    try:
        return tuple(operator(*args))
    except REFUSALS:
        return None


def check(names: Names, args: Arguments) -> None:
    """The operator refuses, or it returns what the formula does."""
    found = outcome(getattr(OPERATORS, names.operator), [args[name] for name in names.order])
    if found is None:
        return
    precise = args | {name: precisely(args[name]) for name in ("mean", "square")}
    ordered = [precise[name] for name in names.order]
    expected = outcome(getattr(OPERATORS, f"{names.operator}_formula"), ordered)
    assert expected is not None, "the formula refuses this"
    on_meta = any(isinstance(arg, Tensor) and arg.is_meta for arg in ordered)
    if on_meta or (names is STANDARDIZE_BACKWARD and not fitting(precise)):
        found, expected = (tuple(t.to("meta") for t in of) for of in (found, expected))
    if names in (STANDARDIZE, NORMALIZE):  # the spare bytes at the end mean nothing
        found, expected = ((*of[:-1], of[-1][:-8]) for of in (found, expected))
    # The inputs are float32, so a few of its roundings, or more where an argument made them less.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def fitting(args: Arguments) -> bool:
    """Whether μ and s² are those of x.  If not, the gradient may be any: that of no function."""
    try:
        statistic = Statistic(*(args[name] for name in Statistic._fields))
        own = formula.moments(args["x"].double(), statistic)
        return all(map(torch.allclose, own, (args["mean"], args["square"])))
    except REFUSALS:
        return False


def precisely(statistic: Tensor | None) -> Tensor | None:
    """μ or s² in float64: the formula works in the type that it gets."""
    if statistic is None or not statistic.is_floating_point():
        return statistic
    return statistic.double()


def replaced(name: str, by: Callable[[Tensor], Any]) -> Spoil:
    def spoil(args: Arguments) -> None:
        args[name] = by(args[name])

    return spoil


def instead(**values: Any) -> Spoil:
    return lambda args: args.update(values)


# What may be wrong with any tensor.
WRONG: dict[str, Callable[[Tensor], Any]] = {
    "one value too many": lambda t: torch.cat((t, t[:1])),
    "one value": lambda t: t.reshape(-1)[:1],
    "no values": lambda t: t[:0],
    "no axes": lambda t: t.reshape(-1)[0],
    "one axis more": lambda t: t[None],
    "one axis behind": lambda t: t[..., None],
    "one axis less": lambda t: t[0],
    "flat": lambda t: t.reshape(-1),
    "transposed": lambda t: t.transpose(0, -1),
    "twice as long": lambda t: torch.cat((t, t), -1),
    "half as long": lambda t: t[..., : t.shape[-1] // 2],
    "float64": Tensor.double,
    "bfloat16": Tensor.bfloat16,
    "int64": Tensor.long,
    "bool": Tensor.bool,
    "complex": lambda t: t.to(torch.complex64),
    "meta": lambda t: t.to("meta"),
    "sparse": Tensor.to_sparse,
    "negated view": torch._neg_view,
    "expanded": lambda t: t[:1].expand_as(t),
    "overlapping": lambda t: t.as_strided(t.shape, [1] * t.dim()),
    "offset": LAYOUTS["offset"],
    "missing": lambda t: None,
}
OF_TENSORS = [
    pytest.param(names, name, id=f"{names.operator} {name}")
    for names in ALL
    for name in names.order
    if name not in (*_STATISTIC, "sign_mask")
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("names", "name"), OF_TENSORS)
def test_one_tensor_is_wrong(names: Names, name: str, wrong: str) -> None:
    for case in CASES:
        for draw in DRAWS:
            args = arguments(case, draw)
            if args[name] is not None:
                args[name] = WRONG[wrong](args[name])
                check(names, args)


# γ and β, and μ and s², go with each other and with x.
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("names", ALL, ids=lambda names: names.operator)
@pytest.mark.parametrize(
    "together", [("weight", "bias"), ("mean", "square"), ("x", "dy"), ("x", "residual", "saved")]
)
def test_several_tensors_are_wrong_alike(
    names: Names, together: tuple[str, ...], wrong: str
) -> None:
    for case in CASES:
        for draw in DRAWS:
            args = arguments(case, draw)
            for name in together:
                if args[name] is not None:
                    args[name] = WRONG[wrong](args[name])
            check(names, args)


SPOILED: dict[str, tuple[tuple[Names, ...], Spoil]] = {
    "sign_mask too short": (ALL[1::2], replaced("sign_mask", lambda t: t[: t.numel() // 4])),
    "sign_mask without spare bytes": (ALL[1::2], replaced("sign_mask", lambda t: t[:-8])),
    "sign_mask one byte short": (ALL[1::2], replaced("sign_mask", lambda t: t[:-1])),
    "sign_mask of one byte": (ALL[1::2], replaced("sign_mask", lambda t: t[:1])),
    "sign_mask too long": (ALL[1::2], replaced("sign_mask", lambda t: torch.cat((t, t)))),
    "sign_mask missing": (ALL[1::2], replaced("sign_mask", lambda t: t[:0])),
    "sign_mask for another phi": (ALL[1::2], instead(phi="tanh")),
    "sign_mask without phi": (ALL[1::2], instead(phi="identity")),
    "sign_mask of two axes": (ALL[1::2], replaced("sign_mask", lambda t: t[None])),
    "sign_mask with steps": (
        ALL[1::2],
        replaced("sign_mask", lambda t: t.repeat_interleave(2)[::2]),
    ),
    "sign_mask of bools": (ALL[1::2], replaced("sign_mask", Tensor.bool)),
    "sign_mask of int64": (ALL[1::2], replaced("sign_mask", Tensor.long)),
    "sign_mask on meta": (ALL[1::2], replaced("sign_mask", lambda t: t.to("meta"))),
    "an axis too far": (WITH_AXES, instead(dims=[0, 9])),
    "an axis far too far": (WITH_AXES, instead(dims=[1 << 40])),
    "an axis before the first": (WITH_AXES, instead(dims=[-9])),
    "an axis from behind": (WITH_AXES, instead(dims=[-1])),
    "an axis twice": (WITH_AXES, instead(dims=[0, 0])),
    "an axis twice, from behind": (WITH_AXES, instead(dims=[1, -2])),
    "axes in disorder": (WITH_AXES, lambda args: args["dims"].reverse()),
    "other axes": (WITH_AXES, instead(dims=[0])),
    "all axes": (WITH_AXES, lambda args: args.update(dims=[*range(args["x"].dim())])),
    "more axes than there are": (WITH_AXES, instead(dims=[*range(70)])),
    "p is zero": (WITH_AXES, instead(p=0.0)),
    "p is negative": (WITH_AXES, instead(p=-1.0)),
    "p is not a number": (WITH_AXES, instead(p=math.nan)),
    "p is minus infinity": (WITH_AXES, instead(p=-math.inf)),
    "p is between": (WITH_AXES, instead(p=1.5)),
    "factor is zero": (WITH_AXES, instead(factor=0.0)),
    "factor is not a number": (WITH_AXES, instead(factor=math.nan)),
    "eps is zero": (ALL, instead(eps=0.0)),
    "eps is negative": (ALL, instead(eps=-100.0)),
    "eps is not a number": (ALL, instead(eps=math.nan)),
    "eps is infinite": (ALL, instead(eps=math.inf)),
    "phi is unknown": (ALL, instead(phi="step")),
    "phi is empty": (ALL, instead(phi="")),
    "phi has a zero": (ALL, instead(phi="relu\0")),
    "phi is long": (ALL, instead(phi="relu" * 10_000)),
}


@pytest.mark.parametrize("what", SPOILED)
def test_another_argument_is_wrong(what: str) -> None:
    pairs, spoil = SPOILED[what]
    for names in pairs:
        for case in CASES:
            for draw in DRAWS:
                args = arguments(case, draw)
                spoil(args)
                check(names, args)


@pytest.mark.parametrize("names", ALL, ids=lambda names: names.operator)
@pytest.mark.parametrize("rank", [0, 1, 7, 12])
def test_few_and_many_axes(names: Names, rank: int) -> None:
    x = torch.randn([2] * rank, generator=torch.Generator().manual_seed(0))
    args = arguments(CASES[0], Draw()) | {"weight": None, "bias": None, "dy": 2 * x, "x": x}
    statistic = torch.ones([2, *[1] * (rank - 1)] if rank else [])
    args |= {"dims": [*range(1, rank)], "mean": statistic, "square": statistic}
    if rank != 1:  # where no axis is left torch takes all of them for the statistics
        check(names, args)


@pytest.mark.parametrize(
    "spoil",
    [
        replaced("residual", lambda t: t[:1]),
        replaced("weight", lambda t: torch.cat((t, t), -1)),
        replaced("bias", lambda t: torch.cat((t, t))),
        instead(dims=[0, 9]),
        instead(dims=[0, 0]),
        instead(phi="step"),
    ],
    ids=["residual", "weight", "bias", "too far", "twice", "phi"],
)
def test_what_no_formula_could_mean_is_refused(spoil: Spoil) -> None:
    args = arguments(Case("batch", (4, 3, 8)), DRAWS[0])
    spoil(args)
    with pytest.raises(REFUSALS):
        OPERATORS.standardize(*(args[name] for name in STANDARDIZE.order))
