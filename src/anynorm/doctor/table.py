"""The table of all checks, by number. The documentation has the same table."""

from __future__ import annotations

from collections.abc import Iterable

from anynorm.doctor.check import Check
from anynorm.doctor.checks import (
    channels,
    magnitudes,
    mode,
    precision,
    recorded,
    sizes,
    state,
    statistics,
    structure,
    training,
)
from anynorm.errors import AnynormError

__all__ = ["CHECKS", "chosen"]

_RECALIBRATE = "model = anynorm.surgery.recalibrate(model, batches).model"
_GRADED = (
    "warning, also for frozen layers; error from 5 times the threshold on, if noise does not "
    "explain it; info if the layer's outputs are off by less than 0.05 σ over all channels"
)
_IOFFE = "Ioffe & Szegedy 2015, arXiv:1502.03167"
_WU = "Wu & Johnson 2021, arXiv:2105.07576"

CHECKS: tuple[Check, ...] = (
    Check(
        1,
        "running mean",
        "the running mean against the mean of the layer's input in eval mode",
        "an F test of all channels of a layer, or t tests of single channels (Benjamini–Hochberg), "
        "with samples as units, at 0.01 over all layers; and a difference above 0.1 σ",
        "warning",
        "In eval mode the layer subtracts a mean that is not that of the data.",
        _RECALIBRATE,
        _WU,
        statistics.mean,
        severities=_GRADED,
    ),
    Check(
        2,
        "running variance",
        "the running variance against the variance of the layer's input in eval mode",
        "the same tests, and a ratio beyond 1.25",
        "warning",
        "In eval mode the layer divides by a σ that is not that of the data.",
        _RECALIBRATE,
        _WU,
        statistics.variance,
        severities=_GRADED,
    ),
    Check(
        3,
        "eval worse than train",
        "the loss with running statistics against the loss with each batch's own, dropout off in "
        "both",
        "a difference above 0 by Student's t at 0.005, corrected for skewness, paired by sample "
        "(by batch if batches differ more than their samples explain); and more than 0.05 + 25%",
        "error",
        "The model was trained with batch statistics, which it does not have in use.",
        "model = anynorm.surgery.recalibrate(model, batches).model"
        "  # or train with group norm: anynorm.surgery.convert(model, 'group')",
        "Ioffe 2017, arXiv:1702.03275; " + _WU,
        training.loss_gap,
    ),
    Check(
        4,
        "too few batches",
        "the share of the initial statistics that is left: (1 − m)ⁿ after n batches with momentum "
        "m",
        "more than 0.001; with batches, only if check 1 or 2 finds the statistics off",
        "warning",
        "Running statistics start at mean 0 and variance 1, and need many batches to adapt.",
        _RECALIBRATE,
        _IOFFE,
        statistics.leftover,
        needs=(),
        severities="warning; error if more than half is left; info if the batches do not reach the "
        "layer",
    ),
    Check(
        5,
        "small batch",
        "the number of values for each channel's μ and σ in training, with batches of this size",
        "fewer than 16",
        "warning",
        "Statistics of few values are noisy: training suffers, and eval mode behaves differently.",
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
        "One sample has no variance over samples: training raises an error, or normalizes the "
        "sample by its own statistics.",
        "loader = torch.utils.data.DataLoader(..., drop_last=True)",
        "PyTorch documentation: torch.utils.data.DataLoader",
        sizes.last_batch,
        severities="warning; error if a channel has a single value",
    ),
    Check(
        7,
        "momentum in the other convention",
        "the momentum m, which is the weight of the new batch",
        "m ≥ 0.5",
        "warning",
        "In some libraries momentum is the weight of the old value: 0.99 there is 0.01 here.",
        "",  # computed from what was given
        "PyTorch documentation: torch.nn.BatchNorm2d",
        state.momentum,
        needs=(),
    ),
    Check(
        8,
        "frozen, but moving",
        "γ and β without gradients while the running statistics still move",
        "the layer is in train mode, or other parameters are still trained",
        "warning",
        "requires_grad = False does not stop running statistics: the frozen layers change.",
        "model = anynorm.surgery.freeze(model, layers=[{layer}]).model",
        _WU,
        state.moving,
        needs=(),
        severities="warning in train mode; info in eval mode, since train() would make them move",
    ),
    Check(
        9,
        "not finite",
        "parameters, running statistics and inputs",
        "any value that is not finite; any negative variance",
        "error",
        "One such value makes the outputs of all later layers NaN.",
        "model.get_submodule({layer}).reset_running_stats(); " + _RECALIBRATE,
        _IOFFE,
        state.non_finite,
        needs=(),
    ),
    Check(
        10,
        "variance out of range",
        "the running variance against the layer's median, and against ε",
        "above 10,000 medians; below 10 ε; an ε other than the default, above 0.001 and above a "
        "tenth of the median variance",
        "warning",
        "A channel with a huge variance costs the others digits; a channel with a variance below ε "
        "is scaled by ε and not by the data.",
        "model.get_submodule({layer}).running_var.sort()  # look at what comes before it",
        _IOFFE,
        state.exploded,
        needs=(),
        severities="warning; info if some but not all channels are below 10 ε",
    ),
    Check(
        11,
        "shared between inputs",
        "the calls of one layer in a forward pass, and the moments of each call",
        "more than one call; the tests of 1 and 2, paired by sample, at 0.01 over all pairs of "
        "calls, and more than 0.1 σ or a ratio beyond 1.25",
        "warning",
        "One set of running statistics serves inputs with different statistics.",
        "model.other = copy.deepcopy(model.get_submodule({layer}))  # for the other call",
        "Xie et al. 2020, arXiv:1911.09665; " + _WU,
        structure.shared,
    ),
    Check(
        12,
        "counted twice",
        "how often a training step counts a batch, and the total count against steps=",
        "twice or more in a step; more than 1.5 times the steps",
        "warning",
        "Activation checkpointing repeats the forward pass, and updates the statistics again.",
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
        "Averaging weights (EMA, SWA) changes the inputs of the layers, but not the statistics.",
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
        "Each process evaluates a different model, and it is arbitrary which one is saved.",
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
        "Batch norm subtracts the bias again with the mean: it is stored, trained and added for "
        "nothing.",
        "model = anynorm.doctor(model, batches, checks=[16]).fix().model  # or bias=False",
        _IOFFE + ", section 3.2",
        structure.idle_bias,
    ),
    Check(
        17,
        "dropout in front of batch norm",
        "the variance of the layer's input with dropout off over that with dropout on",
        "a ratio other than 1 by Student's t, paired by sample, at 0.01 over all layers; and "
        "beyond 1.05",
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
        "The next layer can undo the decay of γ and β, so it has little effect; it is often left "
        "out.",
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
        "Such channels are the same for every input: they cost time and carry no information.",
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
        "The branch that ends in this layer outputs β for every input; it never started to learn, "
        "or was removed.",
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
        "The prediction for a sample changes with the other samples in its batch.",
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
        "Normalizing a single value always gives 0; of a few values little but signs is left.",
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
        "as 1 and 2, and more than twice the effect on the model's own batches",
        "warning",
        "The running statistics are not those of the data on which the model is used.",
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
        "Converters also match subclasses of a layer, and lose what these do in addition.",
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
        "Without model.eval(), predictions depend on the batch.",
        "model.eval()",
        "PyTorch documentation: torch.nn.Module.eval",
        mode.handed_over,
        needs=(),
    ),
    Check(
        26,
        "statistics in 16 bits",
        "the type of the running statistics",
        "bfloat16 or float16",
        "warning",
        "An update by momentum times a difference is smaller than the distance between two 16-bit "
        "numbers: the statistics stop moving before they are right.",
        "model.get_submodule({layer}).float()  # statistics, γ and β; autocast casts the inputs",
        "Zamirai et al. 2020, arXiv:2010.06192",
        precision.stored,
        needs=(),
        severities="warning in train mode; info in eval mode",
    ),
    Check(
        27,
        "γ that never moved",
        "γ in 16 bits, against its initial value 1",
        "exactly 1 in all channels",
        "warning",
        "Near 1, rounding to bfloat16 takes back every step below 0.002, and the steps of an "
        "optimizer are usually smaller.",
        "model.float()  # train in float32 with torch.autocast, or with float32 master weights",
        "Zamirai et al. 2020, arXiv:2010.06192",
        precision.stuck,
        needs=(),
        severities="warning if optimizer= shows that γ was trained, or steps= is given; otherwise "
        "info",
    ),
    Check(
        28,
        "near float16's range",
        "the largest input of a layer, and its square where the module computes it in float16",
        "above an eighth of 65,504; a square above 65,504",
        "warning",
        "Beyond its range a float16 is infinite, and all later values are NaN.",
        "model.bfloat16()  # its range is that of float32",
        "Micikevicius et al. 2018, arXiv:1710.03740",
        precision.near_range,
        severities="warning if the inputs are float16; otherwise info",
    ),
    Check(
        29,
        "massive activations",
        "the largest input over the median, in layers with statistics of each input",
        "more than 100, and more than 1,000 times the median",
        "info",
        "Few channels decide σ; in 8 bits one scale for all channels leaves nothing of the others.",
        "# quantize by channel, or rotate the residual stream after anynorm.fold(model, example)",
        "Sun et al. 2024, arXiv:2402.17762",
        magnitudes.massive,
    ),
    Check(
        30,
        "growing residual stream",
        "the median size of the last layer's input over that at a quarter of the depth, in layers "
        "with statistics of each input",
        "more than 30 times",
        "info",
        "What a late block adds is small beside the stream that it is added to: late blocks "
        "change little, and learn slowly.",
        "# scale down what each block adds, by its depth, or normalize it",
        "Sun et al. 2025, arXiv:2502.05795",
        magnitudes.growing,
    ),
    Check(
        31,
        "ε decides the scale",
        "the mean square (or variance) of each set of values against ε, in layers with statistics "
        "of each input",
        "below ε in half of the sets",
        "warning",
        "The output is then proportional to the input: the layer normalizes little.",
        "model.get_submodule({layer}).eps = 1e-6  # if it was trained with it; or scale the input",
        "Zhang & Sennrich 2019, arXiv:1910.07467",
        magnitudes.by_epsilon,
    ),
    Check(
        32,
        "not as recorded",
        "the settings of the normalizers against the manifest of the weights",
        "any difference",
        "error",
        "A state dict has no ε and does not say which normalizer its γ and β belong to, so weights "
        "load into a model that computes something else.",
        "manifest.restore(model)  # sets ε and momentum; manifest.layers says what others are",
        "LibreYOLO#700",
        recorded.otherwise,
        needs=("manifest=",),
        severities="error if eval mode computes something else; info if only training does",
    ),
)


def chosen(numbers: Iterable[int] | None) -> tuple[Check, ...]:
    """The checks with these numbers, or all for None. Unknown numbers raise `AnynormError`.

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
