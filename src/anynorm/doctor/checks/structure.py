"""The structure of the model: checks 11, 16, 17 and 24."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import Node

from anynorm.doctor.case import CannotRunError, Case, Found, Numbers, Outcome
from anynorm.doctor.comparison import apart, first_apart, run
from anynorm.doctor.deviation import Deviation, Q, off
from anynorm.doctor.drift import MEAN, VARIANCE, relative
from anynorm.doctor.dropped import rate_of
from anynorm.doctor.geometry import epsilon
from anynorm.doctor.record import Record
from anynorm.doctor.significance import discoveries
from anynorm.surgery.batches import part_of, samples_of
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.sample_units import together

__all__ = ["conversion", "dropout", "idle_bias", "idle_biases", "shared"]

RATIO = 1.05
SAME = 1e-3
SAMPLES = 8


def shared(case: Case) -> Outcome:
    """Check 11."""
    records = [r for r in case.batch_like if len(r.calls) > 1 and r.seen and r.finite]
    pairs = [
        _Pair(record, calls)
        for record in records
        for calls in itertools.combinations(range(len(record.calls)), 2)
    ]
    means = off([pair.by_mean for pair in pairs])
    variances = off([pair.by_variance for pair in pairs])
    for record in records:
        found = [
            (*pair.effects(mean[0], variance[0]), pair)
            for pair, mean, variance in zip(pairs, means, variances, strict=True)
            if pair.record is record
        ]
        away, ratio, pair = max(found, key=lambda item: _effect(*item[:2]))
        if _effect(away, ratio) > 1:
            yield _shared(record, away, ratio, pair.calls)


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
        f"differ by up to {away:.2g} σ and variances by up to a factor of {math.exp(ratio):.3g} "
        f"(calls {pair[0] + 1} and {pair[1] + 1})"
    )
    return Found(record.norm.name, message, numbers, _effect(away, ratio))


class _Pair:
    """Two calls of one layer, compared sample by sample: both see the same samples."""

    def __init__(self, record: Record, calls: tuple[int, int]) -> None:
        self.record, self.calls = record, calls
        one, other = (record.calls[number] for number in calls)
        ε = epsilon(record.norm.layer)
        variances = [call.values.variance + ε for call in (one, other)]
        difference = one.values.mean - other.values.mean
        # As in the tests of running statistics: differences are relative to both σ, and the noise
        # of each side is relative to its own σ.
        middle = ((variances[0].square() + variances[1].square()) / 2).sqrt()
        sides = [
            (relative(of_mean, alone.sqrt()), relative(of_variance, alone))
            for call in (one, other)
            for alone, (of_mean, of_variance) in [(call.values.variance, call.units.influences())]
        ]
        of_mean, of_variance = (together(*pair) for pair in zip(*sides, strict=True))
        self.mean = difference / ((variances[0] + variances[1]) / 2).sqrt()
        self.variance = (variances[0] / variances[1]).log()
        self.by_mean = Deviation.of(
            difference / torch.maximum(*variances).sqrt(), of_mean, least=True
        )
        self.by_variance = Deviation.of(
            (variances[0] - variances[1]) / middle, of_variance, least=True
        )

    def effects(self, mean_off: Tensor, variance_off: Tensor) -> tuple[float, float]:
        """The largest differences among the channels that are off: in σ, and as a log ratio."""
        return (
            float(torch.where(mean_off, self.mean.abs(), 0.0).max()),
            float(torch.where(variance_off, self.variance.abs(), 0.0).max()),
        )


def idle_bias(case: Case) -> Outcome:
    """Check 16."""
    for norm, name in idle_biases(case):
        owner, bias = name.rpartition(".")[0], case.model.get_parameter(name)
        if not bias.any():
            continue
        yield Found(
            owner,
            f"the bias {name!r} is subtracted again by {norm.name!r}, the only layer after it",
            {"bias": name, "parameters": bias.numel(), "batch norm": norm.name},
            1.0,
        )


_WITH_BIAS = ("convolution", "conv1d", "conv2d", "conv3d", "conv_transpose", "linear")


def idle_biases(case: Case) -> Iterator[tuple[Normalizer, str]]:
    """Yield batch norms, each with the name of the bias before it that its mean removes."""
    candidates = [n for n in case.tracking if n.fixed and n.spec.invariances.unit_shift]
    if not candidates or not _has_bias(case, {norm.channels for norm in candidates}):
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


def _has_bias(case: Case, channels: set[int]) -> bool:
    """Whether a bias of a fitting size exists. This avoids tracing the model, which is slow."""
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    biases = (m.bias for m in case.model.modules() if isinstance(m, kinds))
    return any(b is not None and len(b) in channels and bool(b.any()) for b in biases)


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
    found = [one for one in case.measured.dropped.ratios() if one.record.norm.name in tracked]
    significant = discoveries(torch.tensor([one.p for one in found], dtype=torch.float64), Q)
    for one, certain in zip(found, significant, strict=True):
        name, before = one.record.norm.name, case.measured.dropped.before[one.record.norm.name]
        if not certain or abs(math.log(one.ratio)) <= math.log(RATIO):
            continue
        rate = rate_of(case.measured.dropped.layers[before])
        numbers: Numbers = {"variance eval / train": one.ratio, "dropout": before, "p": rate}
        message = (
            f"the dropout {before!r} before it makes the variance in eval mode {one.ratio:.2g} "
            "times that in training"
        )
        effect = abs(math.log(one.ratio)) / math.log(RATIO)
        attribute = "p" if hasattr(case.model.get_submodule(before), "p") else "drop_prob"
        fix = f"model.get_submodule({before!r}).{attribute} = 0.0  # or move it behind"
        yield Found(name, message, numbers, effect, fix=fix)


def conversion(case: Case) -> Outcome:
    """Check 24."""
    if case.source is None:
        raise CannotRunError("source=")
    samples = min(SAMPLES, samples_of(case.example, case.batch_axis))
    batch = part_of(case.example, 0, samples, case.batch_axis)
    names = case.layers
    now = run(case.model, batch, names, case.forward)
    before = run(case.source, batch, names, case.forward)
    away = apart(before, now)
    if not away <= SAME:
        layer = first_apart(before, now, SAME)
        kind = type(case.model.get_submodule(layer)).__name__ if layer else "the model"
        numbers: Numbers = {"relative difference": away, "kind": kind}
        message = f"the outputs differ from the source's by {away:.2g}, beginning after this layer"
        message = message if layer else f"the outputs differ from the source's by {away:.2g}"
        yield Found(layer, message, numbers, away / SAME)
