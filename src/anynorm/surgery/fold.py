"""Fold normalizers with running statistics into the layers around them."""

from __future__ import annotations

from torch import nn

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.folding.fold_norms import fold_norms
from anynorm.surgery.model import check_model
from anynorm.surgery.normalizers import normalizers
from anynorm.surgery.receipt import Log, Model, Result
from anynorm.surgery.recognized import find_on
from anynorm.surgery.transaction import Trial, perform
from anynorm.surgery.unmatched import Search

__all__ = ["fold"]


def fold(
    model: Model,
    example: Batch,
    *,
    forward: Forward | None = None,
    inplace: bool = False,
    tolerance: float | None = 1e-4,
) -> Result[Model]:
    """Put the normalizers of a model in eval mode into the layers around them.

    A normalizer with running statistics is a · x + b for each channel.  It is folded into the
    convolution (of any rank, transposed or grouped) or linear layer before it, or into the layer
    after it if there is no padding between the two.  A bias is added if there is none; an
    activation or a residual stays.

    Other normalizers, such as layer and RMS norm, take statistics from each input, so they stay.
    Their γ and β go into all linear layers, convolutions and matrix products that read the output,
    and γ becomes 1 and β 0; a bias is added where β needs one.  Modules of other classes that
    :func:`anynorm.recognize` finds to normalize are among them.

    The operators are found with :func:`torch.export.export` on the example.  If a weight is also
    used in another way, nothing is folded into it; the receipt names every normalizer that is not
    folded, with the reason.  New weights are computed in float64 and rounded once.

    Use a folded model only for inference: it can no longer update statistics.

    Args:
        model: the model, in eval mode.
        example: an input, as a loader gives it.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).
        inplace: whether to change the model itself instead of a copy.
        tolerance: the largest difference of the outputs on the example, relative to their largest
            value; above it everything is undone.  None allows any.  16-bit weights need about 0.05.

    Returns:
        The model and the receipt.

    Raises:
        AnynormError: The model or a normalizer is in train mode, or the model cannot be copied,
            called on the example, or exported.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        >>> fold(model.eval(), torch.randn(2, 3, 9, 9)).model
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
          (2): ReLU()
        )
    """
    check_model("fold", model)
    _check_mode(model)

    def change(target: nn.Module, log: Log) -> nn.Module:
        log.search = Search("normalizers", lambda _: "")
        log.facts["parameters before"] = _count(target)
        target = _folded(target, example, forward, log)
        log.facts["parameters after"] = _count(target)
        return target

    return perform("fold", model, change, Trial(example, forward, tolerance), inplace=inplace)


def _check_mode(model: nn.Module) -> None:
    kept = [norm for norm in normalizers(model) if norm.fixed and norm.tracks]
    training = [norm.name for norm in kept if norm.module.training]
    if model.training or training:
        which = f"its normalizers {training[:3]} are" if training else "the model is"
        raise AnynormError(
            f"{which} in train mode, which uses the statistics of each batch; fold() needs the "
            "running statistics of eval mode. Call model.eval() first."
        )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _folded(model: nn.Module, example: Batch, forward: Forward | None, log: Log) -> nn.Module:
    log.found = find_on(model, example, forward)
    model = fold_norms(model, log.found.norms, example, forward, log)
    log.facts["folded"] = f"{len(log.changed)} of {len(log.found.norms)} normalizers"
    return model
