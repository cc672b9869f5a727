"""The checks of the audit that the doctor does not have."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anynorm.audit.compared import Compared, differs
from anynorm.audit.file_norm import FileNorm
from anynorm.audit.folds import PRODUCTS, fold_of
from anynorm.audit.shipped import Shipped, offset_of
from anynorm.doctor.case import Found, Numbers, Outcome
from anynorm.errors import listed
from anynorm.surgery.affine import affine_of
from anynorm.surgery.streaming_stats import double

__all__ = [
    "decomposed",
    "differing",
    "doubled",
    "in_sixteen_bits",
    "unfolded",
    "uses_batch",
    "zero_eps",
]

_SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133}


def uses_batch(case: Shipped) -> Outcome:
    """Check 101."""
    for norm in case.in_file:
        if not norm.uses_batch:
            continue
        op = norm.ops[0]
        moves = norm.training and norm.mean is not None
        numbers: Numbers = {"operator": op.name, "outputs": len(op.outputs)}
        words = "it is in train mode" if moves else "it has no running statistics"
        words += ": the prediction for a sample depends on the others in its batch"
        if moves:
            words += ", and the running statistics change with each call"
        yield Found(norm.layer, words, numbers, 1.0)


def unfolded(case: Shipped) -> Outcome:
    """Check 102."""
    for norm in case.in_file:
        if norm.family != "batch" or not norm.by_constants:
            continue
        fold = fold_of(norm, case.program)
        if fold.product is None:
            yield Found(
                norm.layer, f"it stays: {fold.told}", {"folds": "no"}, 0.0, "info", "# none"
            )
            continue
        channels = 0 if norm.mean is None else norm.mean.numel()
        has_bias = fold.product.args.get("bias") is not None
        numbers: Numbers = {
            "folds into": fold.told,
            "channels": channels,
            "stored values saved": channels * (4 if has_bias else 3),
            "operators saved": 1,
        }
        words = f"it can be folded into {fold.told}, which saves an operator"
        fix = ""
        if fold.quantized:
            words += "; values are quantized between the two, so fold before the quantization"
            fix = "model = anynorm.fold(model, example).model  # before it is quantized"
        yield Found(norm.layer, words, numbers, 1.0, "", fix)


def differing(case: Shipped) -> Outcome:
    """Check 103."""
    products, _ = case.products
    for norm in case.in_file:
        yield from _tensors(norm, case)
    for one in products:
        told = f"the weight {one.name!r} of {PRODUCTS[one.op.kind]}"
        if one.kind == "other":
            numbers: Numbers = {"weight": one.name, "relative difference": one.difference}
            words = f"{told} differs from the checkpoint's by {one.difference:.2g} of its size"
            words += ", and no batch norm of the checkpoint explains it"
            yield Found(_owner(one.name), words, numbers, math.inf)
        elif not one.bias:
            with_norm = f" with {listed(one.layers)} folded in" if one.layers else ""
            words = f"{told} is the checkpoint's{with_norm}, but the bias is not"
            yield Found(_owner(one.name), words, {"weight": one.name}, math.inf)
    yield from _lost(case, products)


def _owner(name: str) -> str:
    return name.rpartition(".")[0] or name


def _tensors(norm: FileNorm, case: Shipped) -> Outcome:
    """Compare γ, β and the statistics of one normalizer."""
    state, layer = case.stored, norm.layer
    if (layer in case.folded and _is_neutral(norm)) or _is_a_product(
        state.get(f"{layer}.weight"), norm
    ):
        return
    offset = offset_of(case.manifest, layer)
    for name, here in (
        ("weight", norm.gain),
        ("bias", norm.bias),
        ("running_mean", norm.mean),
        ("running_var", norm.variance),
    ):
        there = state.get(f"{layer}.{name}")
        if here is None or there is None:
            continue
        expected = double(there) + offset if name == "weight" and offset else there
        found = _off(here.flatten(), expected.flatten())
        if found is None:
            continue
        if name == "weight" and _off(here.flatten(), (double(there) + 1).flatten()) is None:
            continue  # γ is stored as 1 + w, and no manifest says so
        yield _told(norm, name, here.flatten(), expected.flatten(), found)


def _off(here: Tensor, there: Tensor) -> Tensor | None:
    wrong = differs(here, there)
    if wrong is None:
        return torch.ones(1, dtype=torch.bool)
    return wrong if bool(wrong.any()) else None


def _is_a_product(weight: Tensor | None, norm: FileNorm) -> bool:
    """Whether the checkpoint's tensors of this name are those of a layer that calls a function."""
    if weight is None or weight.dim() < 2:
        return False
    return norm.gain is None or norm.gain.numel() != weight.numel()


def _is_neutral(norm: FileNorm) -> bool:
    """Whether γ is 1 and β is 0, as they are after folding."""
    ones = norm.gain is None or bool((norm.gain == 1).all())
    return ones and (norm.bias is None or not bool(norm.bias.any()))


_NAMES = {
    "weight": "γ",
    "bias": "β",
    "running_mean": "the running mean",
    "running_var": "the running variance",
}


def _told(norm: FileNorm, name: str, here: Tensor, there: Tensor, wrong: Tensor) -> Found:
    if here.shape != there.shape:
        words = f"{_NAMES[name]} has {here.numel()} values, and the checkpoint's {there.numel()}"
        return Found(norm.layer, words, {"tensor": name}, math.inf)
    away = (double(here) - double(there)).abs()
    scale = double(norm.variance) if name == "running_mean" and norm.variance is not None else None
    size = away / scale.sqrt() if scale is not None else away / double(there).abs().max()
    worst = int(size.nan_to_num(math.inf).argmax())
    unit = "σ" if scale is not None else "of the largest"
    numbers: Numbers = {
        "tensor": name,
        "channels": f"{int(wrong.sum())} of {wrong.numel()}",
        "worst channel": worst,
        "here": float(here[worst]),
        "in the checkpoint": float(there[worst]),
    }
    words = f"{_NAMES[name]} differs from the checkpoint's in {int(wrong.sum())} of "
    words += f"{wrong.numel()} channels, by up to {float(size[worst]):.2g} {unit}"
    return Found(norm.layer, words, numbers, math.inf)


def _lost(case: Shipped, products: list[Compared]) -> Outcome:
    """Batch norms of the checkpoint that are neither in the file nor in one of its weights."""
    if not products or not any(one.kind in ("same", "folded") for one in products):
        return
    for layer in case.checkpoint_norms:
        if layer in case.by_layer or layer in case.folded or _renamed(case, layer):
            continue
        # A part of the model that was left out, such as an auxiliary head, is not lost.
        parent = layer.rpartition(".")[0]
        if not parent or any(one.name.startswith(f"{parent}.") for one in products):
            words = "this batch norm of the checkpoint is neither in the file nor folded into one "
            words += "of the weights that could be compared"
            yield Found(layer, words, {}, 1.0, "warning")


def _renamed(case: Shipped, layer: str) -> bool:
    """Whether a normalizer of the file has the statistics of this one under another name."""
    there = case.stored[f"{layer}.running_var"]
    return any(
        norm.variance is not None and _off(norm.variance.flatten(), there.flatten()) is None
        for norm in case.in_file
    )


def doubled(case: Shipped) -> Outcome:
    """Check 104."""
    for one in case.products[0]:
        told = f"the weight {one.name!r}"
        for layer in one.layers:
            if one.kind == "twice":
                words = f"{told} is the checkpoint's times the square of what {layer!r} multiplies "
                words += "with: it was folded twice"
                yield Found(_owner(one.name), words, {"normalizer": layer}, math.inf)
            elif _still_there(case, layer):
                words = f"{told} has it folded in already, and the file applies it again"
                yield Found(layer, words, {"weight": one.name}, math.inf)


def _still_there(case: Shipped, layer: str) -> bool:
    """Whether the file applies what is folded: statistics, γ or β."""
    for norm in case.norms:
        if norm.name == layer and not norm.fixed:
            return not _is_neutral(case.by_layer[layer])
        if norm.name == layer:
            affine = affine_of(norm)
            ones = torch.isclose(affine.a, torch.ones_like(affine.a), rtol=1e-3).all()
            return not (bool(ones) and bool((affine.b.abs() < 1e-3).all()))
    return False


def in_sixteen_bits(case: Shipped) -> Outcome:
    """Check 105."""
    for norm in case.in_file:
        if norm.statistics:
            words = f"its statistics are computed in {norm.statistics}"
            if norm.statistics == "float16":
                words += ": squares above 65,504 are infinite, and ε below 6e-8 is 0"
            yield Found(norm.layer, words, {"type": norm.statistics}, 1.0)


def zero_eps(case: Shipped) -> Outcome:
    """Check 106."""
    for norm in case.in_file:
        if norm.eps is None:
            continue
        least = _SMALLEST.get(norm.statistics, 0.0)
        if norm.eps <= least / 2:
            kind = f", which is 0 in {norm.statistics}" if norm.eps else ""
            words = f"ε is {norm.eps:g}{kind}: values that are all equal give 0 / 0"
            yield Found(norm.layer, words, {"ε": norm.eps}, 1.0)


def decomposed(case: Shipped) -> Outcome:
    """Check 107."""
    for norm in case.in_file:
        if norm.decomposed:
            kinds = " → ".join(op.kind for op in norm.ops)
            words = f"{norm.family} norm is {len(norm.ops)} operators ({kinds})"
            yield Found(norm.layer, words, {"operators": len(norm.ops)}, 1.0)
