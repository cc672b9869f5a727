"""The loss by the statistics of the batch against the loss by the running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anynorm.doctor.geometry import shares_batch
from anynorm.doctor.probe import Probe
from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, call, described, moved, tensors_of
from anynorm.surgery.modes import alone, evaluating
from anynorm.surgery.normalizers import Normalizer

__all__ = ["Loss", "Losses", "default_loss", "target_of"]

Loss = Callable[[Any, Batch], Tensor]


def target_of(batch: Batch) -> Tensor | None:
    """The target in a batch: the second item of a tuple or list, or the key "labels".

    >>> target_of((torch.zeros(2, 3), torch.tensor([0, 1])))
    tensor([0, 1])
    """
    if isinstance(batch, Mapping):
        found = batch.get("labels")
    else:
        found = batch[1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None
    return found if isinstance(found, Tensor) else None


def default_loss(output: Any, batch: Batch) -> Tensor:
    """Cross entropy for whole numbers as targets, else the mean squared error.

    Of the output, the scores are what is called "logits", or else its first tensor.  Raises
    `AnynormError` if there is no target or it does not fit.

    >>> default_loss(torch.zeros(2, 4), (None, torch.tensor([0, 1]))).item() == torch.log(
    ...     torch.tensor(4.0)
    ... )
    tensor(True)
    """
    return _by_sample(output, batch).mean()


def _by_sample(output: Any, batch: Batch) -> Tensor:
    """The default loss of each sample, so weighted that their mean is the loss of the batch."""
    target, scores = target_of(batch), _scores(output)
    if target is None:
        raise AnynormError("the batch has no target")
    target = target.to(scores.device)
    try:
        if target.is_floating_point():
            wanted = target.to(scores.dtype).view_as(scores)
            return _over_positions(F.mse_loss(scores, wanted, reduction="none"))
        # Classes are axis 1, or the last one of an output for each position.
        last = scores.dim() > 2 and scores.shape[:-1] == target.shape
        scores = scores.movedim(-1, 1) if last else scores
        found = F.cross_entropy(scores, target, reduction="none")
        if target.is_floating_point() or found.shape != target.shape:
            return _over_positions(found)
        counted = target != -100  # which cross entropy leaves out
        return _over_positions(found) * counted.numel() / counted.sum()
    except (RuntimeError, ValueError, IndexError) as error:
        raise AnynormError(
            f"no loss of an output {described(scores)} and a target {described(target)}: {error}. "
            "Give loss=lambda output, batch: ..."
        ) from error


def _over_positions(losses: Tensor) -> Tensor:
    return losses.flatten(1).mean(dim=1) if losses.dim() > 1 else losses.reshape(-1)


def _scores(output: Any) -> Tensor:
    keyed = output.get("logits") if isinstance(output, Mapping) else None
    found = getattr(output, "logits", None) if keyed is None else keyed
    return found if isinstance(found, Tensor) else tensors_of(output)[0]


@dataclass
class Losses:
    """The losses of the full batches, by the running and by the batches' own statistics."""

    loss: Loss | None = None
    running: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    gaps: list[Tensor] = field(default_factory=list)  # of each sample, or one of the whole batch
    reason: str = ""  # why there are none

    def see(self, probe: Probe, batch: Batch, output: Any) -> None:
        """Take the model's `output` in eval mode, and call it once more by the batch."""
        layers = [norm for norm in probe.norms if norm.tracks and shares_batch(norm)]
        if self.reason or not layers:
            return
        if self.loss is None and target_of(batch) is None:
            self.reason = "batches with targets, as (input, target) or a key 'labels', or loss="
            return
        try:
            self._measure(probe, layers, batch, output)
        except AnynormError as error:
            self.reason = str(error)

    def _measure(self, probe: Probe, layers: list[Normalizer], batch: Batch, output: Any) -> None:
        by_running = self._value(output, batch)
        with _by_batch(probe.model, layers):
            by_batch = self._value(call(probe.model, batch, probe.forward), batch)
        self.running.append(float(by_running.mean()))
        self.batch.append(float(by_batch.mean()))
        self.gaps.append(by_running - by_batch)

    def _value(self, output: Any, batch: Batch) -> Tensor:
        """The loss of each sample where there is one, else that of the batch."""
        loss = self.loss or _by_sample
        found = loss(output, moved(batch, tensors_of(output)[0].device))
        return torch.as_tensor(found).detach().double().cpu().reshape(-1)


@contextmanager
def _by_batch(model: nn.Module, layers: list[Normalizer]) -> Iterator[None]:
    """Only batch norm is by the batches of this process, and its running statistics stay."""
    owners = [norm.module for norm in layers]
    kept = [dict(owner._buffers) for owner in owners]
    values = [[None if b is None else b.clone() for b in found.values()] for found in kept]
    try:
        with evaluating(model), alone(owners):
            for owner in owners:
                _start(owner)
            yield
    finally:
        with torch.no_grad():
            for owner, buffers, copies in zip(owners, kept, values, strict=True):
                owner._buffers.update(buffers)
                for buffer, value in zip(buffers.values(), copies, strict=True):
                    if buffer is not None and value is not None:
                        buffer.copy_(value)


def _start(owner: nn.Module) -> None:
    if isinstance(owner, nn.SyncBatchNorm):  # which in train mode would wait for the others
        owner._buffers.update(running_mean=None, running_var=None)
    else:
        owner.training = True
