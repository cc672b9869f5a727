"""Cut channels that matter little, and keep the accuracy without fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, each, once
from anynorm.surgery.distill import check_steps
from anynorm.surgery.distill import distill as distilled
from anynorm.surgery.model import check_model
from anynorm.surgery.names import Layers
from anynorm.surgery.prune.choose import Goal
from anynorm.surgery.prune.cutting import Absorb, Cutting
from anynorm.surgery.prune.plan import Plan
from anynorm.surgery.recalibrate import recompute
from anynorm.surgery.receipt import Log, Model, Result
from anynorm.surgery.transaction import Trial, copied, perform

__all__ = ["Pruned", "prune"]


@dataclass(frozen=True)
class Pruned(Result[Model]):
    """The result of :func:`prune`.

    Args:
        model: the pruned model.
        receipt: what was cut, what was not and why.
        plan: the plan that cuts a fresh copy in the same way.

    Example:
        >>> block = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        >>> model = nn.Sequential(*block, nn.Conv2d(4, 2, 1))
        >>> pruned = prune(model, torch.randn(2, 3, 8, 8), ratio=0.5)
        >>> pruned.plan.apply(model)[0]
        Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1))
    """

    plan: Plan


_TOLD = ("samples", "warning", "note")  # of the recalibration


def prune(
    model: Model,
    example: Batch,
    *,
    ratio: float | None = None,
    parameters: float | None = None,
    flops: float | None = None,
    gap: bool = False,
    recalibrate: Iterable[Batch] | None = None,
    refit: Iterable[Batch] | None = None,
    distill: int = 0,
    absorb: Absorb = True,
    least: int = 1,
    multiple: int = 1,
    ignore: Layers = (),
    forward: Forward | None = None,
    inplace: bool = False,
    tolerance: float | None = None,
) -> Pruned[Model]:
    """Cut the channels that matter least, with everything that belongs to them.

    By default these are the channels with the smallest |γ|.

    Say how much to cut in one way: `ratio`, `parameters`, `flops` or `gap`.

    The graph of :func:`torch.export.export` for the example says which channels belong together
    (residual sums, concatenations, depthwise and grouped convolutions, shuffles, gates, flattened
    heads); what reaches an operator without a rule is kept and named in the receipt.  The cut is
    checked: on the example the smaller model must compute what the model does without those
    channels.  With `absorb` the next layers take in the constants of the cut channels; then the
    statistics are recomputed from `recalibrate`.  Without the two, accuracy is lost that no
    fine-tuning should have to bring back.

    Beyond the gap in |γ|, give `refit`: the layers that read cut channels get new weights by least
    squares, by which they give the outputs of the uncut model on these inputs as nearly as they
    can.  Then not |γ| chooses the channels, but the error that is left of the outputs without them
    and after the refit, and channels without a γ can be cut too, such as those between the linear
    layers of a transformer's block, and whole heads of attention.

    Args:
        model: the model.
        example: an input, as a loader gives it.
        ratio: the share of all prunable channels to cut.  Channels that a layer also reads in front
            of the normalizer count, but are kept: their γ does not say whether they are needed.
        parameters, flops: the most that may remain: a share, or a number above 1.
        gap: whether to cut all channels below the natural gap of |γ|, which training with
            :func:`anynorm.slim` makes.
        recalibrate: batches from which the statistics are recomputed: after the cut, or before it
            if there is a `refit`, whose aim is then the recalibrated model.
        refit: inputs without labels, as a loader gives them, from which the layers behind the cut
            are solved anew.  There is one pass over them in each of several rounds, or one for each
            layer where they cannot all wait in memory.
        distill: how many steps of gradient descent follow the refit, on its inputs and without
            labels, towards the outputs of the uncut model.  Every fifth batch is held out: the
            state with the smallest error on them is kept.
        absorb: whether to add the constant φ(β) of a cut channel to the next layer; this is exact
            except at zero-padded borders.  With "channel" it is exact there too: where a layer pads
            its input, one of the cut channels stays with γ = 0, and the layer reads the constants
            of all from it.  A refit fits the constants too.
        least: the smallest number of channels that every layer keeps.  One that stays for its
            constant counts; each layer also keeps one that varies.
        multiple: the number of channels that every layer keeps is a multiple of this.
        ignore: the layers that keep all channels (see :mod:`anynorm.surgery.names`).
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).
        inplace: whether to change the model itself instead of a copy.
        tolerance: the largest relative difference of the outputs on the example; above it
            everything is undone.  None allows any.

    Returns:
        The model, the receipt and the plan, which cuts a fresh model in the same way.

    Raises:
        AnynormError: The goal cannot be reached, the model cannot be copied, called or traced, it
            has no γ for single channels, `refit` has less than two samples or values that are not
            finite, or `distill` is given without it or with a single batch; `absorb` is unknown.

    Example:
        >>> block = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        >>> model = nn.Sequential(*block, nn.Conv2d(4, 2, 1))
        >>> model[1].weight.data = torch.tensor([1.0, 0.0, 1.0, 0.0])
        >>> result = prune(model, torch.randn(2, 3, 8, 8), gap=True)
        >>> result.model[3]
        Conv2d(2, 2, kernel_size=(1, 1), stride=(1, 1))
        >>> result.receipt.difference.relative < 1e-5
        True

    Reference:
        Liu et al. 2017, arXiv:1708.06519; with `refit` He et al. 2017, arXiv:1707.06168, and the
        costs of Hassibi and Stork 1992 (optimal brain surgeon).
    """
    check_model("prune", model)
    goal = Goal(ratio, parameters, flops, gap, least, multiple)
    goal.check()
    _check_absorb(absorb)
    check_steps(distill)
    if distill and refit is None:
        raise AnynormError(f"distill={distill} needs inputs: give them as refit=batches.")
    plans: list[Plan] = []

    inputs = list(each(refit)) if refit is not None and once(refit) else refit

    def settle(target: nn.Module, log: Log) -> None:
        if recalibrate is not None:
            recompute(target, recalibrate, inner := Log(), forward=forward)
            log.facts["recalibrated"] = len(inner.changed)
            log.facts |= {name: inner.facts[name] for name in _TOLD if name in inner.facts}

    def change(target: nn.Module, log: Log) -> nn.Module:
        # A refit keeps the values that reach the normalizers, so their statistics come first.
        # Without it, they are those of the values that the cut leaves.
        if inputs is not None:
            settle(target, log)
        teacher = copied(target) if distill else target
        plans.append(Cutting(target, example, forward, goal, ignore, log, inputs).run(absorb))
        if inputs is None:
            settle(target, log)
        elif distill:
            log.facts["distilled"] = distilled(target, teacher, inputs, distill, forward)
        return target

    trial = Trial(example, forward, tolerance)
    result = perform("prune", model, change, trial, inplace=inplace)
    return Pruned(result.model, result.receipt, plans[-1])


def _check_absorb(absorb: Absorb) -> None:
    if absorb not in (True, False, "channel"):
        raise AnynormError(f"absorb={absorb!r} is unknown: give True, False or 'channel'.")
