"""Compare a model before and after a change in training too: a forward and backward in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from anynorm.surgery.batches import Batch, Forward, applied, moved, tensors_of
from anynorm.surgery.transaction import Trial, copied

__all__ = ["TrainingTrial", "training_step"]


@dataclass(frozen=True)
class TrainingTrial(Trial):
    """A trial that also compares the outputs, gradients and statistics of a training step.

    In float64, since in float32 a rounding can change the gradient of a ReLU completely.
    """

    problems: list[str] = field(default_factory=list)

    def outputs(self, model: nn.Module) -> list[Tensor]:
        """The outputs in eval mode, and what a training step gives, where it can be made."""
        found = super().outputs(model)
        try:
            found += training_step(copied(model).double(), self.example, self.forward)
        except Exception as error:  # such as one value for each channel, or no kernel in float64
            self.problems.append(str(error).partition("\n")[0])
        return found

    @property
    def told(self) -> str:
        """Whether training was compared, in words."""
        return f"not compared: {self.problems[0]}" if self.problems else "compared in float64"


def training_step(model: nn.Module, example: Batch, forward: Forward | None) -> list[Tensor]:
    """The outputs of `model` in train mode, the gradients for random cotangents, and the buffers.

    The model is changed by this.  Dropout draws the same masks each time.
    """
    like = next(model.parameters(), None)
    batch = moved(example, None if like is None else like.device)
    batch = tree_map_only(Tensor, lambda x: x.double() if x.is_floating_point() else x, batch)
    devices = [like.device] if like is not None and like.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(0)
        outputs = tensors_of(applied(model.train(), batch, forward))
    # In a backward with checkpoints torch's batch norms count the batch again, and ours do not.
    buffers = [
        b.detach().flatten().to(torch.float64, copy=True) for _, b in sorted(model.named_buffers())
    ]
    generator = torch.Generator().manual_seed(0)
    loss = sum(
        (y * torch.randn(y.shape, generator=generator).to(y)).sum()
        for y in outputs
        if y.requires_grad
    )
    parameters = {n: p for n, p in sorted(model.named_parameters()) if p.requires_grad}
    if isinstance(loss, Tensor) and parameters:
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradients = [g.flatten() for g in found if g is not None]
    else:
        gradients = []
    return [
        *(y.detach() for y in outputs),
        # Together, since some are zero but for rounding, as of a bias in front of a batch norm.
        *(torch.cat(one) for one in (gradients, buffers) if one),
    ]
