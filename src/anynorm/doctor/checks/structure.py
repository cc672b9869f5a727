"""How layers are put together: checks 11, 16, 17 and 24."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import Node

from anynorm.doctor.case import CannotRunError, Case, Found, Numbers, Outcome
from anynorm.doctor.comparison import apart, first_apart, part_of, run, samples_of
from anynorm.doctor.drift import MEAN, VARIANCE, Q
from anynorm.doctor.dropped import rate_of
from anynorm.doctor.geometry import shares_batch
from anynorm.doctor.record import Moments, Record
from anynorm.doctor.significance import discoveries, welch
from anynorm.surgery.normalizers import Normalizer

__all__ = ["conversion", "dropout", "idle_bias", "idle_biases", "shared"]

RATIO = (0.9, 1.1)
SAME = 1e-3
SAMPLES = 8


def shared(case: Case) -> Outcome:
    """Check 11."""
    for record in case.batch_like:
        if len(record.calls) > 1 and record.seen and record.finite:
            pairs = itertools.combinations(range(len(record.calls)), 2)
            found = [(_differ(record, *pair), pair) for pair in pairs]
            (away, ratio, significant), pair = max(found, key=lambda item: _effect(*item[0][:2]))
            if significant and _effect(away, ratio) > 1:
                yield _shared(record, away, ratio, pair)


def _effect(away: float, ratio: float) -> float:
    return max(away / MEAN, ratio / VARIANCE)


def _shared(record: Record, away: float, ratio: float, pair: tuple[int, int]) -> Found:
    numbers: Numbers = {
        "calls": len(record.calls),
        "calls compared": f"{pair[0] + 1} and {pair[1] + 1}",
        "difference of means in σ": away,
        "ratio of variances": math.exp(ratio),
    }
    message = (
        f"the layer is called {len(record.calls)} times in a forward pass, on inputs whose means "
        f"differ by up to {away:.2g} σ and variances by a factor of {math.exp(ratio):.3g}"
    )
    return Found(record.norm.name, message, numbers, _effect(away, ratio))


def _differ(record: Record, first: int, second: int) -> tuple[float, float, bool]:
    """The largest differences of two calls, among the channels where Welch's test finds one."""
    one, other = record.calls[first], record.calls[second]
    eps = record.norm.module.eps
    pooled = (one.values.variance + other.values.variance) / 2 + eps
    away = (one.values.mean - other.values.mean).abs() / pooled.sqrt()
    ratio = ((one.values.variance + eps) / (other.values.variance + eps)).log().abs()
    tests = torch.stack([_welch(one, other, "means"), _welch(one, other, "spreads")])
    significant = discoveries(tests.flatten(), Q).view_as(tests)
    return (
        float(torch.where(significant[0], away, 0.0).max()),
        float(torch.where(significant[1], ratio, 0.0).max()),
        bool(significant.any()),
    )


def _welch(one: Moments, other: Moments, kind: str) -> Tensor:
    """By the samples' means, since the values of one sample are not independent."""
    a, b = getattr(one, kind), getattr(other, kind)
    errors = (a.variance / a.count, b.variance / b.count)
    return welch((a.mean, b.mean), errors, (max(a.count - 1, 1), max(b.count - 1, 1)))


def idle_bias(case: Case) -> Outcome:
    """Check 16."""
    for norm, name in idle_biases(case):
        owner, bias = name.rpartition(".")[0], case.model.get_parameter(name)
        if not bias.any():
            continue
        yield Found(
            owner,
            f"the bias {name!r} is subtracted again by {norm.name!r}, the only layer behind it",
            {"bias": name, "parameters": bias.numel(), "batch norm": norm.name},
            1.0,
        )


_WITH_BIAS = ("convolution", "conv1d", "conv2d", "conv3d", "conv_transpose", "linear")


def idle_biases(case: Case) -> Iterator[tuple[Normalizer, str]]:
    """Batch norms with the bias in front of them that their mean takes away."""
    candidates = [n for n in case.norms if n.tracks and n.family == "batch" and shares_batch(n)]
    if not candidates or not _has_bias(case):
        return
    graph = case.graph
    for norm in candidates:
        calls = [c for name in norm.place.names for c in graph.calls.get(name, [])]
        if len(calls) != 1 or not calls[0].inputs:
            continue
        source = calls[0].inputs[0]
        bias = _bias_of(case, source)
        inside = set(calls[0].nodes)
        if bias and all(user in inside for user in source.users):
            yield norm, bias


def _has_bias(case: Case) -> bool:
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    return any(isinstance(m, kinds) and m.bias is not None for m in case.model.modules())


def _bias_of(case: Case, node: Node) -> str:
    """The bias that a convolution or linear operator adds, if it is used nowhere else."""
    if not any(str(node.target).startswith(f"aten.{kind}") for kind in _WITH_BIAS):
        return ""
    bias = case.graph.state(node.args[2]) if len(node.args) > 2 else None
    if bias is None or len(case.graph.users[bias]) != 1:
        return ""
    return bias if bias in dict(case.model.named_parameters(remove_duplicate=False)) else ""


def dropout(case: Case) -> Outcome:
    """Check 17."""
    tracked = {norm.name for norm in case.tracking}
    for record, ratio in case.measured.dropped.ratios():
        name = record.norm.name
        if name in tracked and not RATIO[0] <= ratio <= RATIO[1]:
            before = case.measured.dropped.before[name]
            rate = rate_of(case.measured.dropped.layers[before])
            numbers: Numbers = {"variance eval / train": ratio, "dropout": before, "p": rate}
            message = (
                f"the dropout {before!r} before it makes the variance in eval mode {ratio:.2g} "
                "times that in training"
            )
            effect = abs(math.log(ratio)) / math.log(RATIO[1])
            attribute = "p" if hasattr(case.model.get_submodule(before), "p") else "drop_prob"
            fix = f"model.get_submodule({before!r}).{attribute} = 0.0  # or move it behind"
            yield Found(name, message, numbers, effect, fix=fix)


def conversion(case: Case) -> Outcome:
    """Check 24."""
    if case.source is None:
        raise CannotRunError("source=")
    batch = part_of(case.example, 0, min(SAMPLES, samples_of(case.example)))
    names = [record.norm.name for record in case.measured.records]
    now = run(case.model, batch, names, case.forward)
    before = run(case.source, batch, names, case.forward)
    away = apart(before, now)
    if not away <= SAME:
        layer = first_apart(before, now, SAME)
        kind = type(case.model.get_submodule(layer)).__name__ if layer else "the model"
        numbers: Numbers = {"relative difference": away, "kind": kind}
        message = f"the outputs differ from the source's by {away:.2g}, first behind this layer"
        message = message if layer else f"the outputs differ from the source's by {away:.2g}"
        yield Found(layer, message, numbers, away / SAME)
