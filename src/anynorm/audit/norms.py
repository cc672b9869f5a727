"""The normalizers of a program: single operators, and chains of operators that compute one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from anynorm.audit.program import Op, Program

__all__ = ["FileNorm", "found_norms"]

FAMILIES = ("batch", "layer", "rms", "instance", "group")
_PARAMETERS = ("weight", "bias", "running_mean", "running_var")
# Operators that a chain is read through: they do not change values, or only their type.
_THROUGH = ("cast", "identity", "expand", "_assert_tensor_metadata")
_VIEWS = ("Reshape", "reshape", "view", "_unsafe_view")
_RESHAPED = ("instance", "batch")
_SIXTEEN = {10: "float16", 16: "bfloat16"}  # types of ONNX, as `stash_type` has them


@dataclass(frozen=True)
class FileNorm:
    """A normalizer in a file.

    `ops` has its operators, the one that takes the input first; there are several if an exporter
    decomposed it.  `gain` is γ as it multiplies; `offset` is what the program adds to the stored
    parameter for it, as in 1 + w.  `statistics` is the type in which they are computed, if the file
    says that it has 16 bits.
    """

    family: str
    layer: str
    ops: tuple[Op, ...]
    gain: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None
    eps: float | None = None
    offset: float = 0.0
    momentum: float = 0.1
    training: bool = False
    groups: int | None = None
    batches: Tensor | None = None
    statistics: str = ""
    shape: tuple[int, ...] = ()

    @property
    def decomposed(self) -> bool:
        """Whether several operators compute it."""
        return len(self.ops) > 1

    @property
    def uses_batch(self) -> bool:
        """Whether it is a batch norm that uses the statistics of each batch."""
        return self.family == "batch" and (self.training or self.mean is None)

    @property
    def keeps(self) -> bool:
        """Whether it has running statistics."""
        return self.mean is not None or self.variance is not None

    @property
    def by_constants(self) -> bool:
        """Whether it is γ · (x − mean) / √(var + ε) + β with stored statistics."""
        return self.mean is not None and self.variance is not None and not self.training


def found_norms(program: Program) -> list[FileNorm]:
    """Return every normalizer of a program, in the order of its operators, by different names."""
    every: list[FileNorm] = []
    for op in program.ops:
        if op.kind in FAMILIES:
            norm = _single(op, program)
            every.append(_by_views(norm, program) if norm.family in _RESHAPED else norm)
        elif op.kind in ("sqrt", "rsqrt", "pow"):
            every += _chain(op, program)
    return list(_told_apart(every))


def _single(op: Op, program: Program) -> FileNorm:
    args = op.args
    gain, bias, mean, variance = (program.tensor(args.get(name)) for name in _PARAMETERS)
    training = bool(args.get("training", False)) and op.kind == "batch"
    groups = args.get("num_groups") if op.kind == "group" else None
    momentum = args.get("momentum")
    layer = _name(op, program)
    counted = f"{layer}.num_batches_tracked"
    count = next((v for v in program.tensors if program.name_of(v) == counted), None)
    eps = args.get("eps")
    return FileNorm(
        op.kind,
        layer,
        (op,),
        gain,
        bias,
        mean,
        variance,
        None if eps is None else float(eps),
        momentum=0.1 if momentum is None else float(momentum),
        training=training,
        groups=None if groups is None else int(groups),
        batches=None if count is None else program.tensors[count](),
        statistics=_SIXTEEN.get(args.get("stash_type", 0), ""),
        shape=tuple(args.get("normalized_shape") or (() if gain is None else gain.shape)),
    )


def _by_views(norm: FileNorm, program: Program) -> FileNorm:
    """Group norm as instance norm of a reshaped input, and instance norm as batch norm of one."""
    op = norm.ops[0]
    before = program.maker(op.args.get("x"))
    after = [one for one in program.readers(op.output) if one.kind in _VIEWS]
    if before is None or before.kind not in _VIEWS or not after:
        return norm
    if norm.family == "batch":
        return norm if norm.mean is not None else replace(norm, family="instance", training=False)
    gain, _, bias, affine = _affine(after[0].output, program)
    if gain is None:
        return norm
    groups = None if norm.gain is None else norm.gain.numel()
    return replace(
        norm,
        family="group",
        layer=_scope([op, *affine], program),
        ops=(before, op, after[0], *affine),
        gain=gain,
        bias=bias,
        groups=groups,
    )


def _name(op: Op, program: Program) -> str:
    """The layer's name: by its running mean, the module that the file names, or its γ.

    Exporters store equal tensors once, under one name, so γ of another layer may stand for it.
    """
    for argument, ending in (("running_mean", ".running_mean"), ("weight", ".weight")):
        parameter = program.name_of(op.args.get(argument))
        if parameter.endswith(ending) and (argument == "running_mean" or not op.layer):
            return parameter.removesuffix(ending)
    return op.layer or op.name


def _told_apart(every: Sequence[FileNorm]) -> Iterator[FileNorm]:
    seen: Counter[str] = Counter()
    for norm in every:
        seen[norm.layer] += 1
        again = seen[norm.layer]
        yield norm if again == 1 else replace(norm, layer=f"{norm.layer} (use {again})")


class _Root(NamedTuple):
    """1 / √(mean of squares + ε), or the root itself, of a chain."""

    squares: Any
    eps: float | None
    mean: Op


def _chain(op: Op, program: Program) -> Iterator[FileNorm]:
    """The normalizer whose root `op` is; nothing if it is another root.

    It is x or x − mean(x), divided by the root of the mean of its squares.
    """
    if op.kind == "pow" and program.number(op.args.get("other")) not in (0.5, -0.5):
        return
    root = _root(op, program)
    if root is None:
        return
    deviation = _squared(root.squares, program)
    if deviation is None:
        return
    centered = _centered(deviation, program)
    outcome = _scaled(op, deviation, program)
    if outcome is None:
        return
    ops, output = outcome
    first = program.maker(deviation) if centered else None
    inner = [one for one in (first, root.mean, op) if one is not None]
    gain, offset, bias, affine = _affine(output, program)
    yield FileNorm(
        "layer" if centered else "rms",
        _scope([*inner, *ops, *affine], program),
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
    for reader in program.readers(value):
        if reader.kind in _THROUGH:
            found += _next(reader.output, kinds, program)
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


def _affine(value: str, program: Program) -> tuple[Tensor | None, float, Tensor | None, list[Op]]:
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


def _scope(ops: Sequence[Op], program: Program) -> str:
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
