"""Which products a batch norm could be folded into, or why not."""

from __future__ import annotations

import math
from typing import NamedTuple

from anynorm.audit.file_norm import FileNorm
from anynorm.audit.program import Op, Program
from anynorm.errors import listed

__all__ = ["PRODUCTS", "Fold", "fold_of", "name_of"]

PRODUCTS = {
    "conv": "the convolution",
    "conv_transpose": "the transposed convolution",
    "linear": "the linear layer",
}
_QUANTIZED = ("quantize", "dequantize")
_THROUGH = ("identity", "cast", *_QUANTIZED)


class Fold(NamedTuple):
    """What folding a batch norm would take: the product, or why it stays."""

    product: Op | None
    told: str  # the product in words, or the reason
    quantized: bool = False  # whether the values between are quantized


def fold_of(norm: FileNorm, program: Program) -> Fold:
    """Look at the product in front of a batch norm with stored statistics, then behind it.

    A product in front takes it if nothing else reads its output, and one behind if it reads
    nothing else and has no padding.
    """
    in_front = _in_front(norm, program)
    if in_front.product is not None:
        return in_front
    behind = _behind(norm, program)
    if behind.product is not None:
        return behind
    return Fold(None, f"in front: {in_front.told}; behind: {behind.told}")


def _in_front(norm: FileNorm, program: Program) -> Fold:
    op = norm.ops[0]
    product, passed = program.back(op.args.get("x"), _THROUGH)
    if product is None or product.kind not in PRODUCTS:
        return Fold(None, _told(product))
    between = [maker for maker in map(program.maker, passed) if maker not in (None, product)]
    known = [op, *(one for one in between if one is not None)]
    if others := list(program.other_readers(passed, known)):
        return Fold(None, f"{name_of(product, program)} is also read by {listed(others, 3)}")
    if reason := _axis_obstacle(product, program) or _weight_obstacle(product, program):
        return Fold(None, reason)
    quantized = any(one.kind in _QUANTIZED for one in known)
    return Fold(product, name_of(product, program), quantized)


def _behind(norm: FileNorm, program: Program) -> Fold:
    output = norm.ops[-1].output
    readers = program.readers(output)
    if len(readers) != 1 or output in program.outputs:
        return Fold(None, f"{len(readers)} operators read it" if readers else "it is the output")
    product = readers[0]
    if product.kind not in ("conv", "linear") or product.args.get("x") != output:
        return Fold(None, _told(product))
    if product.kind == "conv" and _pads(product):
        return Fold(None, f"{name_of(product, program)} pads its input with zeros")
    if reason := _axis_obstacle(product, program) or _weight_obstacle(product, program):
        return Fold(None, reason)
    return Fold(product, name_of(product, program))


def _told(op: Op | None) -> str:
    return "the input of the program" if op is None else f"the operator {op.kind!r}"


def name_of(product: Op, program: Program) -> str:
    """The kind and the name of a product."""
    parameter = program.name_of(product.args.get("weight"))
    owner = parameter.removesuffix(".weight") if parameter.endswith(".weight") else product.layer
    return f"{PRODUCTS[product.kind]} {owner or product.name!r}"


def _axis_obstacle(product: Op, program: Program) -> str:
    """Batch norm has its channels on axis 1, and a linear layer on the last."""
    rank = program.ranks.get(product.output)
    if product.kind != "linear" or rank == 2:
        return ""
    axes = "an unknown number of" if rank is None else str(rank)
    return (
        f"the output of {name_of(product, program)} has {axes} axes, and its channels are the last"
    )


def _weight_obstacle(product: Op, program: Program) -> str:
    stored = program.stored(product.args.get("weight"))
    told = name_of(product, program)
    if stored is None:
        return f"the weight of {told} is computed"
    if len(program.readers(stored)) > 1:
        return f"the weight of {told} is used elsewhere too"
    return ""


def _pads(product: Op) -> bool:
    padding = product.args.get("pads", product.args.get("padding", 0))
    automatic = product.args.get("auto_pad", b"NOTSET")
    if automatic not in (b"NOTSET", b"VALID", "NOTSET", "VALID"):
        return bool(math.prod(product.args.get("kernel_shape", [2])) > 1)
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
