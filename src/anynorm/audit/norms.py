"""The normalizers of a program: single operators, and chains of operators that compute one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from anynorm.audit.chains import affine_of, chains, scope_of
from anynorm.audit.file_norm import FileNorm
from anynorm.audit.program import Op, Program

__all__ = ["FAMILIES", "found_norms"]

FAMILIES = ("batch", "layer", "rms", "instance", "group")
_PARAMETERS = ("weight", "bias", "running_mean", "running_var")
_VIEWS = ("Reshape", "reshape", "view", "_unsafe_view")
_RESHAPED = ("instance", "batch")
_SIXTEEN = {10: "float16", 16: "bfloat16"}  # types of ONNX, as `stash_type` has them


def found_norms(program: Program) -> list[FileNorm]:
    """Return every normalizer of a program, in the order of its operators, by different names."""
    every: list[FileNorm] = []
    for op in program.ops:
        if op.kind in FAMILIES:
            norm = _single(op, program)
            every.append(_by_views(norm, program) if norm.family in _RESHAPED else norm)
        elif op.kind in ("sqrt", "rsqrt", "pow"):
            every += chains(op, program)
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
    gain, _, bias, affine = affine_of(after[0].output, program)
    if gain is None:
        return norm
    groups = None if norm.gain is None else norm.gain.numel()
    return replace(
        norm,
        family="group",
        layer=scope_of([op, *affine], program),
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
