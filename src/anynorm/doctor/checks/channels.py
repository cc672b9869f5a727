"""Channels that carry no information: checks 19 and 20."""

from __future__ import annotations

import torch
from torch import Tensor

from anynorm.doctor.case import Case, Found, Numbers, Outcome
from anynorm.doctor.geometry import double
from anynorm.surgery.normalizers import Normalizer

__all__ = ["dead", "zero"]

DEAD = 1e-3  # of the layer's median


def dead(case: Case) -> Outcome:
    """Check 19."""
    outputs = {} if case.survey is None else {r.norm.name: r.outputs for r in case.measured.records}
    for norm in case.norms:
        weight = norm.affine[0]
        small = _below(double(weight).abs().flatten()) if weight is not None else None
        pooled = outputs.get(norm.name)
        constant = None
        if pooled is not None and pooled.count > 1 and bool(pooled.mean.isfinite().all()):
            constant = _below(pooled.variance.clamp_min(0).sqrt())
        if found := _found(norm, small, constant):
            yield found


def _below(size: Tensor) -> Tensor:
    """Which channels are dead compared with the others; in a layer of zeros all are."""
    return (size.cpu() <= DEAD * size.cpu().median()) & bool(size.isfinite().all())


def _found(norm: Normalizer, small: Tensor | None, constant: Tensor | None) -> Found | None:
    counts = [0 if which is None else int(which.sum()) for which in (small, constant)]
    if not any(counts):
        return None
    total = len(small) if small is not None else len(constant) if constant is not None else 0
    # γ of layers over several axes has more values than there are channels of the output.
    together = _both(small, constant)
    numbers: Numbers = {
        "channels": f"{together} of {total}",
        "γ near zero": counts[0],
        "constant output": counts[1],
    }
    message = f"{together} of {total} channels are dead: γ is near zero in {counts[0]}, and the "
    message += f"output is constant in {counts[1]}"
    return Found(norm.name, message, numbers, 1 + together / max(total, 1))


def _both(small: Tensor | None, constant: Tensor | None) -> int:
    given = [which for which in (small, constant) if which is not None]
    if len(given) == 2 and len(given[0]) == len(given[1]):
        return int((given[0] | given[1]).sum())
    return max(int(which.sum()) for which in given)


def zero(case: Case) -> Outcome:
    """Check 20."""
    for norm in case.norms:
        weight, tracked = norm.affine[0], norm.batches
        if weight is None or torch.any(weight) or (norm.counts and not tracked):
            continue
        numbers: Numbers = {"channels": weight.numel(), "batches tracked": tracked}
        behind = f" after {tracked} batches" if tracked else ""
        message = f"γ is exactly 0 in all {weight.numel()} channels{behind}"
        yield Found(norm.name, message, numbers, 1.0, fix=_ones(norm))


def _ones(norm: Normalizer) -> str:
    """The fix, if γ is not the parameter "weight" itself."""
    found = norm.recognition
    if found is None or (found.weight == "weight" and not norm.spec.learned.offset):
        return ""
    start = "zeros_" if norm.spec.learned.offset else "ones_"
    parameter = f"model.get_parameter({f'{norm.name}.{found.weight}'!r})"
    return f"torch.nn.init.{start}({parameter})  # γ = 1; or drop the branch"
