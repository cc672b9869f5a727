"""The table of the checks: the order of the numbers is that of the documentation."""

from __future__ import annotations

from collections.abc import Iterable

from anynorm.doctor.check import Check
from anynorm.doctor.checks import channels, mode, sizes, state, statistics, structure, training
from anynorm.errors import AnynormError

__all__ = ["CHECKS", "chosen"]

_RECALIBRATE = "model = anynorm.surgery.recalibrate(model, batches).model"
_GRADED = (
    "warning, also for frozen layers; error from 5 times the threshold on, where noise does not "
    "explain it; info where the layer's outputs are off by less than 0.05 σ, over all channels"
)
_IOFFE = "Ioffe & Szegedy 2015, arXiv:1502.03167"
_WU = "Wu & Johnson 2021, arXiv:2105.07576"

CHECKS: tuple[Check, ...] = (
    Check(
        1,
        "running mean",
        "the running mean against the mean of what reaches the layer in eval mode",
        "all channels of a layer together by F, or one by t and Benjamini–Hochberg, with the "
        "samples as units, at 0.01 over all layers, and more than 0.1 σ",
        "warning",
        "Eval mode subtracts a mean that the data do not have, in every layer anew.",
        _RECALIBRATE,
        _WU,
        statistics.mean,
        severities=_GRADED,
    ),
    Check(
        2,
        "running variance",
        "the running variance against the variance of what reaches the layer in eval mode",
        "the same test, and a ratio beyond 1.25",
        "warning",
        "Eval mode divides by a σ that the data do not have.",
        _RECALIBRATE,
        _WU,
        statistics.variance,
        severities=_GRADED,
    ),
    Check(
        3,
        "eval worse than train",
        "the loss by the running statistics against that by each batch's, dropout off in both",
        "above 0 by Student's t, corrected for skewness, at 0.005, paired by sample, "
        "or by batch if batches differ by more than their samples explain, and more than 0.05 + "
        "25%",
        "error",
        "The model fits the statistics of batches, which it does not get in use.",
        "model = anynorm.surgery.recalibrate(model, batches).model"
        "  # or train with group norm: anynorm.surgery.convert(model, 'group')",
        "Ioffe 2017, arXiv:1702.03275; " + _WU,
        training.loss_gap,
    ),
    Check(
        4,
        "too few batches",
        "what is left of the initial statistics, (1 − m)ⁿ after n batches with momentum m",
        "more than 0.001; given batches, only where 1 or 2 find the statistics off",
        "warning",
        "Running statistics start at mean 0 and variance 1, and need many batches to forget that.",
        _RECALIBRATE,
        _IOFFE,
        statistics.leftover,
        needs=(),
        severities="warning; error where more than half is left; info where the batches do not "
        "reach the layer",
    ),
    Check(
        5,
        "small batch",
        "the values that a channel's μ and σ rest on in training, with batches of this size",
        "fewer than 16",
        "warning",
        "Statistics of few values are noise: training suffers, and eval mode behaves differently.",
        "model = anynorm.surgery.convert(model, 'group', groups=8).model"
        "  # or 'sync' on several devices",
        "Wu & He 2018, arXiv:1803.08494",
        sizes.small_batch,
    ),
    Check(
        6,
        "last batch of one",
        "the number of samples modulo the batch size, without drop_last",
        "1",
        "warning",
        "One sample has no variance over samples: an error in training, or statistics that are "
        "those of that sample.",
        "loader = torch.utils.data.DataLoader(..., drop_last=True)",
        "PyTorch documentation: torch.utils.data.DataLoader",
        sizes.last_batch,
        severities="warning; error where a channel has a single value",
    ),
    Check(
        7,
        "momentum in the other convention",
        "the momentum m, which is the weight of the new batch",
        "m ≥ 0.5",
        "warning",
        "Some libraries mean the weight of the old value: 0.99 there is 0.01 here.",
        "",  # computed from what was given
        "PyTorch documentation: torch.nn.BatchNorm2d",
        state.momentum,
        needs=(),
    ),
    Check(
        8,
        "frozen, but moving",
        "γ and β without gradients while the running statistics still move",
        "in train mode, or other parameters still trained",
        "warning",
        "requires_grad = False does not stop running statistics: the frozen layers change.",
        "model = anynorm.surgery.freeze(model, layers=[{layer}]).model",
        _WU,
        state.moving,
        needs=(),
        severities="warning in train mode; info in eval mode, where train() would start it",
    ),
    Check(
        9,
        "not finite",
        "parameters, running statistics and inputs",
        "any that is not finite; any negative variance",
        "error",
        "One such value makes everything behind it NaN.",
        "model.get_submodule({layer}).reset_running_stats(); " + _RECALIBRATE,
        _IOFFE,
        state.non_finite,
        needs=(),
    ),
    Check(
        10,
        "variance out of range",
        "the running variance against the layer's median, and against ε",
        "above 10,000 medians; below 10 ε; an ε that is not the usual one, above 0.001 and above a "
        "tenth of the median variance",
        "warning",
        "A channel that dwarfs the others loses their digits; below ε it is ε that scales it.",
        "model.get_submodule({layer}).running_var.sort()  # look at what comes before it",
        _IOFFE,
        state.exploded,
        needs=(),
        severities="warning; info where some channels but not all are below 10 ε",
    ),
    Check(
        11,
        "shared between inputs",
        "the calls of one layer in a forward pass, and the moments of each call",
        "more than one call; the tests of 1 and 2, paired by sample, at 0.01 over all pairs of "
        "calls, and more than 0.1 σ or a ratio beyond 1.25",
        "warning",
        "One set of running statistics is kept for inputs that have different ones.",
        "model.other = copy.deepcopy(model.get_submodule({layer}))  # for the other call",
        "Xie et al. 2020, arXiv:1911.09665; " + _WU,
        structure.shared,
    ),
    Check(
        12,
        "counted twice",
        "batches counted in a step of training, and in all against steps=",
        "twice or more in a step; more than 1.5 times the steps",
        "warning",
        "Activation checkpointing runs the forward pass again, and the statistics move again.",
        "model = anynorm.surgery.convert(model, 'anynorm').model  # counts a batch once",
        "Chen et al. 2016, arXiv:1604.06174",
        training.counted_twice,
        needs=("batches or steps=",),
    ),
    Check(
        13,
        "averaged weights, stale statistics",
        "tests 1 and 2 on the model with averaged weights",
        "as 1 and 2",
        "warning",
        "Averaging weights (EMA, SWA) changes what reaches each layer; the statistics stay behind.",
        "averaged = anynorm.surgery.recalibrate(averaged, batches).model",
        "Izmailov et al. 2018, arXiv:1803.05407",
        statistics.averaged,
        needs=("batches", "averaged="),
        severities=_GRADED,
    ),
    Check(
        14,
        "ranks disagree",
        "the running statistics of all processes",
        "means apart by more than 0.1 σ, or a ratio of variances beyond 1.25",
        "warning",
        "Each process evaluates another model, and the one that is saved is arbitrary.",
        "model = anynorm.surgery.convert(model, 'sync').model",
        "Peng et al. 2018, arXiv:1711.07240",
        statistics.ranks,
        needs=(),
        severities="warning; error from 5 times the threshold on",
    ),
    Check(
        15,
        "accumulation of small batches",
        "check 5, with gradients accumulated over several batches",
        "fewer than 16 values in each",
        "warning",
        "Accumulated gradients do not make the batch of the statistics larger.",
        "model = anynorm.surgery.convert(model, 'group', groups=8).model",
        "Hoffer et al. 2017, arXiv:1705.08741",
        sizes.accumulated,
        needs=("batches", "accumulation= above 1"),
    ),
    Check(
        16,
        "bias in front of batch norm",
        "biases of convolutions and linear layers whose only consumer is a batch norm",
        "any that is not 0",
        "info",
        "The mean takes the bias away again: it is stored, trained and added for nothing.",
        "model = anynorm.doctor(model, batches, checks=[16]).fix().model  # or bias=False",
        _IOFFE + ", section 3.2",
        structure.idle_bias,
    ),
    Check(
        17,
        "dropout in front of batch norm",
        "the variance of the layer's input with dropout off over that with dropout on",
        "not 1 by Student's t, paired by sample, at 0.01 over all layers, and beyond 1.05",
        "warning",
        "The running variance is learned with dropout on and used with dropout off.",
        "",  # names the dropout
        "Li et al. 2019, arXiv:1801.05134",
        structure.dropout,
    ),
    Check(
        18,
        "weight decay on γ and β",
        "the optimizer's parameter groups",
        "weight decay above 0 in a group with γ or β",
        "info",
        "Decay of γ and β limits nothing that the next layer could not undo; often it is left out.",
        "optimizer = torch.optim.AdamW([dict(params=weights), "
        "dict(params=norms, weight_decay=0.0)])",
        "He et al. 2019, arXiv:1812.01187",
        training.decay,
        needs=("optimizer=",),
    ),
    Check(
        19,
        "dead channels",
        "|γ|, and σ of the layer's output",
        "at most 0.001 of the layer's median",
        "info",
        "Such channels are the same for every input: they cost time and carry nothing.",
        "model = anynorm.surgery.prune(model, example, ratio=0.1, recalibrate=batches).model",
        "Liu et al. 2017, arXiv:1708.06519",
        channels.dead,
        needs=(),
    ),
    Check(
        20,
        "γ exactly 0",
        "γ of a whole layer after training",
        "all exactly 0",
        "warning",
        "The branch that ends in this layer puts out β whatever comes in; it never started to "
        "learn, or was cut.",
        "torch.nn.init.ones_(model.get_submodule({layer}).weight)  # or drop the branch",
        "Goyal et al. 2017, arXiv:1706.02677",
        channels.zero,
        needs=(),
    ),
    Check(
        21,
        "output depends on the batch",
        "the output for one sample alone against that in a batch, in eval mode",
        "a relative difference above 0.001",
        "error",
        "Predictions change with the samples that happen to come along.",
        "torch.nn.BatchNorm2d(channels, track_running_stats=True)  # for {layer}; recalibrate then",
        _IOFFE,
        sizes.companions,
    ),
    Check(
        22,
        "too few values in a group",
        "the values that share μ and σ in group, instance, layer and RMS norm",
        "fewer than 16: warning; fewer than 2: error",
        "warning",
        "Of a single value nothing is left, of a few little but signs.",
        "model = anynorm.surgery.convert(model, 'group', source=['instance', 'group'], groups=1)"
        ".model",
        "Wu & He 2018, arXiv:1803.08494",
        sizes.few_in_group,
        severities="warning; error below 2",
    ),
    Check(
        23,
        "shifted data",
        "tests 1 and 2 on target's batches",
        "as 1 and 2, and twice what its own batches show",
        "warning",
        "The data that the model is used on are not those that its statistics are of.",
        "model = anynorm.surgery.recalibrate(model, target).model  # AdaBN",
        "Li et al. 2016, arXiv:1603.04779",
        statistics.target,
        needs=("target=",),
        severities=_GRADED,
    ),
    Check(
        24,
        "conversion changed the function",
        "the outputs against those of the source in eval mode",
        "a relative difference above 0.001",
        "error",
        "Converters match subclasses of layers too, and lose what those do besides.",
        "model = anynorm.surgery.convert(source, 'anynorm', example).sure()",
        "pytorch#104593, pytorch#197539",
        structure.conversion,
        needs=("batches", "source="),
    ),
    Check(
        25,
        "handed over in train mode",
        "the mode of the layers with running statistics",
        "any in train mode",
        "info",
        "Who forgets model.eval() gets predictions that depend on the batch.",
        "model.eval()",
        "PyTorch documentation: torch.nn.Module.eval",
        mode.handed_over,
        needs=(),
    ),
)


def chosen(numbers: Iterable[int] | None) -> tuple[Check, ...]:
    """The checks with these numbers, or all for None; raises `AnynormError` for an unknown one.

    >>> [check.name for check in chosen([7])]
    ['momentum in the other convention']
    """
    if numbers is None:
        return CHECKS
    wanted = list(numbers) if isinstance(numbers, Iterable) else []
    known = [check.number for check in CHECKS]
    if not wanted or any(number not in known for number in wanted):
        raise AnynormError(
            f"checks={numbers!r}; give the numbers of checks, 1 to {len(CHECKS)}, as in [1, 2]."
        )
    return tuple(check for check in CHECKS if check.number in wanted)
