"""The score of a model on batches: its loss, its predictions, the agreement of its statistics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from anynorm.doctor.drift import measurable
from anynorm.doctor.geometry import double
from anynorm.doctor.losses import Loss, default_loss, target_of
from anynorm.doctor.probe import Probe
from anynorm.doctor.record import Record
from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, moved, samples_of, tensors_of

__all__ = ["Score", "better", "changed", "distance", "merged", "samples", "score", "worse"]

MOST = 5.0  # σ: the most that one channel counts, so that a dead channel does not hide the others
GAIN = (0.01, 0.05)  # losses differ if the difference is larger than this plus this share of them


@dataclass
class Score:
    """Measurements on batches; lists have one entry for each batch."""

    losses: list[float] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)  # the class with the highest score
    right: int = 0  # predictions that are the label
    labels: int = 0
    off: dict[str, float] = field(default_factory=dict)  # σ, by layer
    order: list[str] = field(default_factory=list)  # of the layers in the forward pass

    @property
    def loss(self) -> float | None:
        """The mean loss; None without labels."""
        return statistics.fmean(self.losses) if self.losses else None

    @property
    def mean_off(self) -> float:
        """By how many σ the running statistics are off, as the mean over layers."""
        return statistics.fmean(self.off.values()) if self.off else 0.0


def score(
    model: nn.Module, batches: Sequence[Batch], loss: Loss | None, forward: Forward | None
) -> Score:
    """Measure a model in eval mode."""
    found = Score()
    probe = Probe(model, forward, brief=True)
    for batch in batches:
        with probe:
            output = probe.run(batch)
        _see(found, output, batch, loss)
    records = probe.in_order()
    found.off = {record.norm.name: distance(record) for record in measurable(records)}
    found.order = [record.norm.name for record in records]
    return found


def _see(found: Score, output: Any, batch: Batch, loss: Loss | None) -> None:
    values = _scores(output)
    target = target_of(batch)
    if loss is not None or target is not None:
        try:
            device = tensors_of(output)[0].device
            found.losses.append(float((loss or default_loss)(output, moved(batch, device))))
        except AnynormError:  # labels of another length; check 3 says so
            target = None
    fits = target is not None and _whole(target) and values.dim() > 1
    fits = fits and target is not None and target.shape == values.argmax(1).shape
    if values.dim() == 2 or fits:
        predicted = values.argmax(1).cpu()
        found.predictions.append(predicted)
        if target is not None and fits:
            found.right += int((predicted == target.cpu()).sum())
            found.labels += target.numel()


def _whole(target: Tensor) -> bool:
    return not target.is_floating_point()


def _scores(output: Any) -> Tensor:
    named = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    return named if isinstance(named, Tensor) else tensors_of(output)[0]


def distance(record: Record) -> float:
    """By how many σ the running statistics of a layer are off, root mean square over channels."""
    module, values = record.norm.layer, record.inputs.values
    eps = float(getattr(module, "eps", 1e-5))  # some frozen layers keep theirs to themselves
    variance = values.variance + eps
    by_mean = (double(module.running_mean).cpu() - values.mean) / variance.sqrt()
    by_deviation = ((double(module.running_var).cpu() + eps) / variance).log() / 2
    both = (by_mean.square() + by_deviation.square()).nan_to_num(nan=MOST**2)
    return float(both.clamp(max=MOST**2).mean().sqrt())


def merged(parts: Sequence[Score]) -> Score:
    """The scores of parts of the batches as one."""
    found = Score(order=parts[0].order)
    for part in parts:
        found.losses += part.losses
        found.predictions += part.predictions
        found.right += part.right
        found.labels += part.labels
    names = [name for name in parts[0].off if all(name in part.off for part in parts)]
    found.off = {n: math.sqrt(statistics.fmean(p.off[n] ** 2 for p in parts)) for n in names}
    return found


def better(before: Score, after: Score) -> bool:
    """Whether the loss is clearly lower."""
    return _lower(before.loss, after.loss)


def worse(before: Score, after: Score) -> bool:
    """Whether the loss is clearly higher."""
    return _lower(after.loss, before.loss)


def _lower(high: float | None, low: float | None) -> bool:
    if high is None or low is None or not math.isfinite(low):
        return False
    return not high - low <= GAIN[0] + GAIN[1] * abs(high)


def changed(before: Score, after: Score) -> tuple[int, int]:
    """The number of predictions that differ, and the number of predictions."""
    pairs = list(zip(before.predictions, after.predictions, strict=False))
    same = [(a, b) for a, b in pairs if a.shape == b.shape]
    return sum(int((a != b).sum()) for a, b in same), sum(a.numel() for a, _ in same)


def samples(batches: Sequence[Batch]) -> int:
    """The total number of samples."""
    return sum(map(samples_of, batches))
