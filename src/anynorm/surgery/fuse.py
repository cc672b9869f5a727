"""Fuse activations, and residuals in front of them, into the normalizers of a model."""

from __future__ import annotations

from torch import nn

from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.fusing.blocks import Blocks
from anynorm.surgery.fusing.fuse_norms import fuse_norms
from anynorm.surgery.fusing.observe_calls import observe_calls
from anynorm.surgery.fusing.training import TrainingTrial
from anynorm.surgery.model import check_model
from anynorm.surgery.names import Layers
from anynorm.surgery.normalizers import Normalizer, named, normalizers
from anynorm.surgery.receipt import Log, Model, Result
from anynorm.surgery.recognized import candidates, find, observe_unknown
from anynorm.surgery.replace import leave_fast_path
from anynorm.surgery.transaction import perform
from anynorm.surgery.unmatched import Search

__all__ = ["fuse"]


def fuse(
    model: Model,
    example: Batch,
    *,
    layers: Layers | None = None,
    forward: Forward | None = None,
    inplace: bool = False,
    tolerance: float | None = 1e-4,
) -> Result[Model]:
    """Let normalizers apply the activation that follows them, and add the residual before it.

    Each normalizer becomes anynorm's layer of the same function.  Where only φ follows, or the sum
    with a residual and then φ, the layer computes these too, in one operator, forward and backward.
    The model is for training and inference as before: parameters, names, state dict, modes and the
    hooks of all other modules stay.

    An activation that is a module and is called only behind normalizers becomes `nn.Identity`.
    Otherwise the module whose forward calls it gets a class with a new forward, a subclass of its
    own class: see ``fused_from`` and :mod:`torch.fx`.  Activations are known by their values and
    gradients, whatever their class.

    The receipt names every normalizer with which nothing is fused, with the reason; it becomes
    anynorm's layer too, if there is one.

    Args:
        model: the model, in any mode.
        example: an input, as a loader gives it.
        layers: the normalizers to fuse, of these (see :mod:`anynorm.surgery.names`); None for all.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).
        inplace: whether to change the model itself instead of a copy.
        tolerance: the largest difference of the outputs on the example, relative to their largest
            value; and of the outputs, gradients and running statistics of a training step, in
            float64.  Above it everything is undone.  None allows any.

    Returns:
        The model and the receipt.

    Raises:
        AnynormError: An entry of `layers` names no normalizer, or the model cannot be copied or
            called on the example.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.GELU())
        >>> fuse(model, torch.randn(2, 3)).model
        Sequential(
          (0): Linear(in_features=3, out_features=8, bias=True)
          (1): LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=True, activation='gelu')
          (2): Identity()
        )
    """
    check_model("fuse", model)
    trial = TrainingTrial(example, forward, tolerance)

    def change(target: nn.Module, log: Log) -> nn.Module:
        log.search = Search("normalizers that an activation follows", _why_not)
        modules = dict.fromkeys([*(n.module for n in normalizers(target)), *candidates(target)])
        seen, calls = observe_unknown(target, modules, example, forward)
        log.found = find(target, {m: seen[m] for m in candidates(target)}, calls)
        norms = [norm for norm in log.found.norms if not _why_not(norm)]
        norms = named(norms, layers, "normalize without an activation")
        blocks = Blocks(target, observe_calls(target, example, forward))
        target = fuse_norms(target, norms, blocks, seen, log)
        leave_fast_path(target)
        log.facts["in training"] = trial.told
        return target

    return perform("fuse", model, change, trial, inplace=inplace)


def _why_not(norm: Normalizer) -> str:
    ours = type(norm.module).__module__.startswith("anynorm.")
    return "an activation is fused already" if ours and norm.activation is not None else ""
