"""Chains of operators that compute layer or RMS norm, as exporters and model code write them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from anynorm.audit.file_norm import FileNorm
from anynorm.audit.program import Op, Program

__all__ = ["affine_of", "chains", "scope_of"]

# Operators that a chain is read through: they do not change values, or only their type.
_THROUGH = ("cast", "identity", "expand", "_assert_tensor_metadata")


class _Root(NamedTuple):
    """1 / √(mean of squares + ε), or the root itself, of a chain."""

    squares: Any
    eps: float | None
    mean: Op


def chains(op: Op, program: Program) -> Iterator[FileNorm]:
    """The normalizer whose root `op` is; nothing if it is another root.

    It is x or x − mean(x), divided by the root of the mean of its squares.
    """
    if op.kind == "pow" and program.number(op.args.get("other")) not in (0.5, -0.5):
        return
    root = _root(op, program)
    if root is None:
        return
    deviation = _squared(root.squares, program)
    if deviation is None or program.stored(deviation) is not None:  # of a weight
        return
    centered = _centered(deviation, program)
    outcome = _scaled(op, deviation, program)
    if outcome is None:
        return
    ops, output = outcome
    first = program.maker(deviation) if centered else None
    inner = [one for one in (first, root.mean, op) if one is not None]
    gain, offset, bias, affine = affine_of(output, program)
    yield FileNorm(
        "layer" if centered else "rms",
        scope_of([*inner, *ops, *affine], program),
        (*inner, *ops, *affine),
        gain,
        bias,
        eps=root.eps,
        offset=offset,
        statistics=program.type_of(root.mean.output),
    )


def _through(value: Any, program: Program) -> Any:
    """Go back through operators that only change the type."""
    maker = program.maker(value)
    while maker is not None and maker.kind in _THROUGH:
        value = maker.args.get("x")
        maker = program.maker(value)
    return value


def _maker(value: Any, program: Program) -> Op | None:
    return program.maker(_through(value, program))


def _root(op: Op, program: Program) -> _Root | None:
    """What stands under the root: the mean of squares, and ε if it is added there."""
    under, eps = _maker(op.args.get("x"), program), None
    if under is not None and under.kind in ("add", "max", "maximum", "clamp_min"):
        pair = [under.args.get("x"), under.args.get("other", under.args.get("min"))]
        numbers = [program.number(value) for value in pair]
        eps = next((number for number in numbers if number is not None), None)
        under = next((m for m in (_maker(value, program) for value in pair) if m is not None), None)
    if under is None or under.kind not in ("mean", "var"):
        return None
    return _Root(under.args.get("x"), eps, under)


def _squared(value: Any, program: Program) -> Any:
    """What is squared: pow(x, 2) or x · x; None if it is no square."""
    square = _maker(value, program)
    if square is None or square.kind not in ("pow", "mul", "square"):
        return None
    x, other = square.args.get("x"), square.args.get("other")
    doubled = square.kind == "square" or program.number(other) == 2
    return x if doubled or (square.kind == "mul" and other == x) else None


def _centered(deviation: Any, program: Program) -> bool:
    """Whether a value is x − mean(x)."""
    maker = _maker(deviation, program)
    if maker is None or maker.kind != "sub":
        return False
    mean = _maker(maker.args.get("other"), program)
    if mean is None or mean.kind != "mean":
        return False
    return bool(_through(mean.args.get("x"), program) == _through(maker.args.get("x"), program))


def _next(value: str, kinds: Sequence[str], program: Program) -> list[Op]:
    """The operators of these kinds that read a value, also through changes of type."""
    found: list[Op] = []
    values = [value]
    while values:
        for reader in program.readers(values.pop()):
            if reader.kind in _THROUGH:
                values.append(reader.output)
            elif reader.kind in kinds:
                found.append(reader)
    return found


def _scaled(root: Op, deviation: Any, program: Program) -> tuple[list[Op], str] | None:
    """The operators from the root to deviation / root, and their output."""
    ops: list[Op] = []
    value = root.output
    if plus := _next(value, ("add",), program):  # ε beside the root
        value, ops = plus[0].output, [plus[0]]
    if inverse := _next(value, ("reciprocal",), program):
        value, ops = inverse[0].output, [*ops, inverse[0]]
    same = _through(deviation, program)
    for reader in _next(value, ("mul", "div"), program):
        sides = [_through(reader.args.get(name), program) for name in ("x", "other")]
        if same in sides:
            return [*ops, reader], reader.output
    return None


def affine_of(value: str, program: Program) -> tuple[Tensor | None, float, Tensor | None, list[Op]]:
    """γ as it multiplies, what is added to the parameter for it, β, and their operators."""
    gain, offset, bias = None, 0.0, None
    ops: list[Op] = []
    if multiplied := _next(value, ("mul",), program):
        gain, offset = _parameter(multiplied[0], value, program)
    if gain is not None:
        ops, value = [multiplied[0]], multiplied[0].output
    if gain is not None and (added := _next(value, ("add",), program)):
        bias, _ = _parameter(added[0], value, program)
        ops += [added[0]] if bias is not None else []
    return gain, offset, bias, ops


def _parameter(op: Op, value: str, program: Program) -> tuple[Tensor | None, float]:
    """The stored side of a product or sum, as it is used, and what is added to it before."""
    for name in ("other", "x"):
        side = op.args.get(name)
        stored = program.tensor(side)
        if stored is not None and stored.numel() > 1:
            return stored.flatten(), 0.0
        plus = _maker(side, program)
        if side != value and plus is not None and plus.kind == "add":
            parts = [plus.args.get("x"), plus.args.get("other")]
            tensors = [t for t in map(program.tensor, parts) if t is not None and t.numel() > 1]
            numbers = [n for n in map(program.number, parts) if n is not None]
            if len(tensors) == 1 and len(numbers) == 1 and math.isfinite(numbers[0]):
                return (tensors[0].double() + numbers[0]).flatten(), numbers[0]
    return None, 0.0


def scope_of(ops: Sequence[Op], program: Program) -> str:
    """The module of most operators of a chain, or the name of its root."""
    layers = Counter(op.layer for op in ops if op.layer)
    if layers:
        return layers.most_common(1)[0][0]
    for op in ops:
        for value in op.inputs:
            parameter = program.name_of(value)
            if parameter.endswith(".weight"):
                return parameter.removesuffix(".weight")
    return ops[0].name
