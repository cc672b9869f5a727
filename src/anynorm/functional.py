"""The normalizers as functions: torch.nn.functional's signatures, and `normalize` for any Spec.

Each function checks its input, resolves the pattern and calls one operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from anynorm import ops
from anynorm.activations import activation as named_activation
from anynorm.errors import AnynormError, ShapeError
from anynorm.ops import Running, Statistic
from anynorm.pattern import Pattern, Plan
from anynorm.spec import Spec

__all__ = [
    "Running",
    "activate",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "normalize",
    "rms_norm",
    "scale_of",
]

Activation = str | Callable[[Tensor], Tensor] | None


def batch_norm(
    input: Tensor,  # noqa: A002 - torch's name
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: Tensor | None = None,
    activation: Activation = None,
) -> Tensor:
    """Batch norm of `input` (N, C, *) → (N, C, *), as :func:`torch.nn.functional.batch_norm`.

    Running statistics of shape (C,) are updated in place in training, never by values that are
    not finite.  A `momentum` of None averages over all batches and needs `num_batches_tracked`.
    Raises `ShapeError` for fewer than 2 axes, channels that do not match, or a single value per
    channel in training.  Ioffe & Szegedy 2015, arXiv:1502.03167.

    >>> x = torch.randn(8, 3, 5, 5)
    >>> batch_norm(x, None, None, training=True).mean((0, 2, 3)).abs().max() < 1e-6
    tensor(True)
    """
    if eps <= 0:
        raise AnynormError(f"eps must be positive, got {eps}: σ = sqrt(s² + ε). Try eps=1e-5.")
    if training:
        if input.dim() < 2 or input.numel() == input.shape[1]:
            _need_several_values(input)
    elif running_mean is None or running_var is None:
        raise AnynormError(
            "batch norm in evaluation needs running_mean and running_var, and got None. Pass them, "
            "or training=True to take the statistics of this batch."
        )
    running = None
    if running_mean is not None and running_var is not None:
        running = Running(running_mean, running_var, num_batches_tracked, momentum)
    y = ops.native.batch(input, running, weight, bias, training, eps)
    return y if activation is None else activate(y, activation)


def instance_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
) -> Tensor:
    """Instance norm of `input` (N, C, *), as :func:`torch.nn.functional.instance_norm`.

    Raises `ShapeError` for a single value per instance.  Ulyanov et al. 2016, arXiv:1607.08022.

    >>> instance_norm(torch.randn(2, 3, 16)).shape
    torch.Size([2, 3, 16])
    """
    if use_input_stats:
        _need_several_positions(input)
    if input.numel() == 0:  # which torch's operator cannot take
        return input.clone()
    running = None
    if running_mean is not None and running_var is not None:
        running = Running(running_mean, running_var, None, momentum)
    y = ops.native.instance(input, running, weight, bias, use_input_stats, eps)
    return activate(y, activation)


def layer_norm(
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
) -> Tensor:
    """Layer norm over the last axes of `input`, as :func:`torch.nn.functional.layer_norm`.

    Raises `ShapeError` if the input does not end in `normalized_shape`.  Ba et al. 2016,
    arXiv:1607.06450.

    >>> layer_norm(torch.randn(2, 7, 10), (10,)).shape
    torch.Size([2, 7, 10])
    """
    try:
        y = ops.native.layer(input, normalized_shape, weight, bias, eps)
    except RuntimeError:
        _need_last_axes(input, normalized_shape)
        raise
    return y if activation is None else activate(y, activation)


def rms_norm(
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    activation: Activation = None,
) -> Tensor:
    """RMS norm over the last axes of `input`, as :func:`torch.nn.functional.rms_norm`.

    Raises `ShapeError` if the input does not end in `normalized_shape`.  Zhang & Sennrich 2019,
    arXiv:1910.07467.

    >>> rms_norm(torch.tensor([[3.0, 4.0]]), (2,))
    tensor([[0.8485, 1.1314]])
    """
    try:
        y = ops.native.rms(input, normalized_shape, weight, eps)
    except RuntimeError:
        _need_last_axes(input, normalized_shape)
        raise
    return y if activation is None else activate(y, activation)


def group_norm(
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
) -> Tensor:
    """Group norm of `input` (N, C, *), as :func:`torch.nn.functional.group_norm`.

    Raises `ShapeError` if `num_groups` does not divide C, or `weight` is not one for each channel.
    Wu & He 2018, arXiv:1803.08494.

    >>> group_norm(torch.randn(2, 6, 4), 3).shape
    torch.Size([2, 6, 4])
    """
    check_groups(num_groups, input.shape)
    try:
        y = ops.native.group(input, num_groups, weight, bias, eps)
    except RuntimeError:
        _need_channels(input, weight)
        raise
    return activate(y, activation)


def normalize(
    x: Tensor,
    spec: Spec,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running: Running | None = None,
    *,
    training: bool = True,
    eps: float = 1e-5,
    sizes: Mapping[str, int] | None = None,
    activation: Activation = None,
) -> Tensor:
    """Normalize `x` by any specification: h = φ(γ · (x − μ) / σ + β), of the shape of `x`.

    `weight` and `bias` start at the pattern's channel axis.  `running` statistics are updated in
    place in training and used in its stead otherwise.  `sizes` gives the parts of split axes.
    Raises `ShapeError` if `x` does not fit the pattern.

    >>> x = torch.randn(4, 6, 5)
    >>> normalize(x, Spec.of("n (g [c]) [...]"), sizes={"g": 2}).shape
    torch.Size([4, 6, 5])
    """
    plan, sizes = spec.pattern.plan(x.dim()), sizes or {}
    if spec.is_identity:
        return activate(_affine(x, plan, weight, bias), activation)
    _need_axes(x, plan)
    if plan.takes_batch and (training or running is None):
        _need_several(x, plan, sizes)
    if spec.scale is not None and spec.scale.root is not None:
        y = _whiten(x, spec, spec.scale.root, plan, weight, bias, running, training, eps, sizes)
    elif running is not None and not training:
        y = _with_running(x, plan, weight, bias, running, eps if spec.scale else 0.0)
    elif native := _native(x, spec, plan, weight, bias, running):
        y = native(x, weight, bias, running, eps, sizes)
    else:
        return _standardize(x, spec, plan, weight, bias, running, eps, sizes, activation)
    return activate(y, activation)


def scale_of(x: Tensor, spec: Spec, eps: float = 1e-5) -> Tensor:
    """Return σ of `x` under a specification without split axes, 1 in the axes it is taken over.

    >>> scale_of(torch.tensor([[3.0, 4.0]]), Spec.of("o [i]", scale="norm"), eps=0.0)
    tensor([[5.]])
    """
    statistic = _statistic(spec, x, spec.pattern.plan(x.dim()).dims, eps)
    return torch.sqrt(ops.moments(x, statistic)[1] + eps)


def activate(y: Tensor, activation: Activation) -> Tensor:
    """Apply φ: a name of :data:`anynorm.activations.ACTIVATIONS`, a function, or nothing.

    >>> activate(torch.tensor([-1.0, 2.0]), "relu")
    tensor([0., 2.])
    """
    if activation is None:
        return y
    return named_activation(activation).forward(y) if isinstance(activation, str) else activation(y)


# What torch has an operator for, by pattern: (x, γ, β, running statistics, ε, sizes) → y.
_Native = Callable[..., Tensor]
_LAST = "... [c]"
_STANDARD: dict[str, _Native] = {
    "[n] c [...]": lambda x, w, b, running, eps, _: ops.native.batch(x, running, w, b, True, eps),
    _LAST: lambda x, w, b, _, eps, __: layer_norm(x, x.shape[-1:], w, b, eps),
    "n c [...]": lambda x, w, b, _, eps, __: instance_norm(x, None, None, w, b, eps=eps),
    "n (g [c]) [...]": lambda x, w, b, _, eps, sizes: group_norm(x, _groups(x, sizes), w, b, eps),
    "n [c ...]": lambda x, w, b, _, eps, __: group_norm(x, 1, w, b, eps),
}
_ROOT_MEAN_SQUARE: dict[str, _Native] = {
    _LAST: lambda x, w, _, __, eps, ___: rms_norm(x, x.shape[-1:], w, eps),
}


def _groups(x: Tensor, sizes: Mapping[str, int]) -> int:
    """The number of groups, where the size of a group may be given in its stead."""
    if len(sizes) == 1 and "g" in sizes:
        return sizes["g"]
    return Pattern.parse("n (g [c]) [...]").plan(x.dim()).view(tuple(x.shape), sizes)[1]


def _native(
    x: Tensor,
    spec: Spec,
    plan: Plan,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
) -> _Native | None:
    """The call of torch's own operator, if it has one for this specification."""
    for vector in (weight, bias, None if running is None else running.mean):
        if vector is not None and vector.dim() != 1:
            return None
    last = x.dim() - 1
    only_last = plan.dims == (last,) and plan.first == last and not plan.splits
    pattern = _LAST if only_last else plan.pattern.text
    if spec.is_standard:
        return _STANDARD.get(pattern)
    if spec.is_root_mean_square and bias is None:
        return _ROOT_MEAN_SQUARE.get(pattern)
    return None


def _standardize(
    x: Tensor,
    spec: Spec,
    plan: Plan,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    sizes: Mapping[str, int],
    activation: Activation,
) -> Tensor:
    view = x.reshape(plan.view(tuple(x.shape), sizes)) if plan.splits else x
    check_activation(activation)
    _need_real(x)
    fused = activation if isinstance(activation, str) else "identity"
    statistic = _statistic(spec, view, plan.dims, eps)
    weight_, bias_ = (
        p if p is None else p.reshape(plan.affine_view(tuple(p.shape), sizes))
        for p in (weight, bias)
    )
    y, mean, square = ops.standardize(view, weight_, bias_, statistic, fused)
    if running is not None:
        affine = plan.affine_view(tuple(running.mean.shape), sizes)
        _track(running, spec, affine, mean, square, view.numel() // max(mean.numel(), 1))
    y = y.reshape(x.shape) if plan.splits else y
    return y if isinstance(activation, str) else activate(y, activation)


def _statistic(spec: Spec, view: Tensor, dims: Sequence[int], eps: float) -> Statistic:
    scale = spec.scale
    if scale is None:  # σ = 1: only μ is taken away
        return Statistic(list(dims), spec.center, True, 2.0, 0.0, 1.0)
    count = math.prod([view.shape[dim] for dim in dims])
    about_mean = scale.origin == "mean"
    return Statistic(list(dims), spec.center, about_mean, scale.p, scale.factor(count), eps)


def _track(
    running: Running, spec: Spec, affine: list[int], mean: Tensor, square: Tensor, count: int
) -> None:
    """Let statistics of the split view enter the running ones, which lie where γ does.

    They are averaged over the axes that γ does not have (the parts of a ghost batch), and repeated
    over those that they lack.  The variance gets Bessel's correction.
    """
    unbiased = spec.scale is not None and spec.scale.is_standard_deviation
    correction = count / (count - 1) if unbiased and count > 1 else 1.0
    square = torch.ones_like(mean) if spec.scale is None else square * correction
    extra = [axis for axis, size in enumerate(affine) if size == 1]

    def placed(statistic: Tensor) -> Tensor:
        mean = statistic.mean(extra, keepdim=True) if extra else statistic
        return mean.expand(affine).reshape(running.mean.shape)

    running.track(placed(mean), placed(square))


def _with_running(
    x: Tensor,
    plan: Plan,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running,
    eps: float,
) -> Tensor:
    """Evaluation: every running variance is an s², so batch norm's operator serves them all."""
    first, width = plan.first, running.mean.dim()
    if width == 1 and first == 1:
        return ops.native.batch(x, running, weight, bias, False, eps)
    # The operator wants the axes of the statistics as one, and that one second.
    weight, bias = (p if p is None else p.reshape(-1) for p in (weight, bias))
    still = running._replace(mean=running.mean.reshape(-1), var=running.var.reshape(-1))
    if width == 0:
        return ops.native.batch(x.reshape(1, 1, -1), still, weight, bias, False, eps).view_as(x)
    moved = x.flatten(first, first + width - 1).movedim(first, 1)
    y = ops.native.batch(moved, still, weight, bias, False, eps)
    return y.movedim(1, first).reshape(x.shape)


def _whiten(
    x: Tensor,
    spec: Spec,
    root: str,
    plan: Plan,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    training: bool,
    eps: float,
    sizes: Mapping[str, int],
) -> Tensor:
    """Whiten the channels of each group, with the values folded into matrices (groups, c, m)."""
    _need_real(x)
    if x.numel() == 0:
        return x.clone()
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # 16 bits are too few for a covariance
        with torch.autocast(device, enabled=False):
            return _whiten(x, spec, root, plan, weight, bias, running, training, eps, sizes)
    view = x.reshape(plan.view(tuple(x.shape), sizes))
    order, channel = plan.matrix_order
    moved = view.permute(order)
    values = moved.reshape(-1, moved.shape[channel], math.prod(moved.shape[channel + 1 :]))
    values = values if values.dtype == torch.float64 else values.float()
    if training or running is None:
        mean, covariance = ops.whitening.moments(values)
        if running is not None:
            _track_covariance(running, mean, covariance)
    else:
        mean, covariance = _running_covariance(running, values)
    centred = values - mean if spec.center else values
    white = ops.whitening.inverse_root(covariance, root, eps) @ centred
    back = [order.index(axis) for axis in range(len(order))]
    y = white.reshape(moved.shape).permute(back).reshape(x.shape)
    return _affine(y, plan, weight, bias).to(x.dtype)


def _track_covariance(running: Running, mean: Tensor, covariance: Tensor) -> None:
    """Average over the parts of a split batch, which are folded in front of the groups."""
    mean = mean.reshape(-1, *running.mean.shape).mean(0)
    running.track(mean, covariance.reshape(-1, *running.var.shape).mean(0))


def _running_covariance(running: Running, values: Tensor) -> tuple[Tensor, Tensor]:
    """The running mean and covariance for each of the folded matrices."""
    groups, channels = running.var.shape[:2]
    parts = values.shape[0] // groups
    mean = running.mean.reshape(groups, channels, 1).to(values.dtype)
    return mean.repeat(parts, 1, 1), running.var.to(values.dtype).repeat(parts, 1, 1)


def _affine(x: Tensor, plan: Plan, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    after = x.dim() - plan.first
    if weight is not None:
        x = x * weight.reshape(*weight.shape, *[1] * (after - weight.dim()))
    if bias is not None:
        x = x + bias.reshape(*bias.shape, *[1] * (after - bias.dim()))
    return x


def _need_several_values(x: Tensor) -> None:
    """Batch norm in training: more than one value for each channel, and a channel axis."""
    if x.dim() < 2 and x.numel():
        raise ShapeError(
            f"batch norm takes an input (N, C, *) of at least 2 axes, got shape {tuple(x.shape)}. "
            "Add a batch axis with x.unsqueeze(0)."
        )
    if x.numel() == x.shape[1 if x.dim() > 1 else 0] != 0:
        _single_value(x, "the batch")


def _need_axes(x: Tensor, plan: Plan) -> None:
    if not plan.dims:
        raise ShapeError(
            f"an input of shape {tuple(x.shape)} leaves no axis in the brackets of "
            f"'{plan.pattern}': there is nothing to take statistics over. Give it positions, as in "
            "(N, C, L), or use another pattern."
        )


def _need_real(x: Tensor) -> None:
    if not x.is_floating_point():
        raise AnynormError(
            f"normalization takes real floating-point numbers, got {x.dtype} in shape "
            f"{tuple(x.shape)}. Convert the input with x.float(), or torch.view_as_real(x)."
        )


def _need_several(x: Tensor, plan: Plan, sizes: Mapping[str, int]) -> None:
    shape = plan.view(tuple(x.shape), sizes)
    if math.prod([shape[dim] for dim in plan.dims]) == 1 and x.numel():
        _single_value(x, "the axes in brackets")


def _single_value(x: Tensor, where: str) -> None:
    raise ShapeError(
        f"Expected more than 1 value per channel when training, got input size {x.shape}: the "
        f"deviation of {where} would be 0. Use a larger batch (drop_last=True in the DataLoader "
        "drops a last batch of one), .eval(), or a normalizer without batch statistics such as "
        "group norm."
    )


def _need_several_positions(x: Tensor) -> None:
    if x.dim() < 3 or math.prod(x.shape[2:]) == 1:
        raise ShapeError(
            "Expected more than 1 spatial element when training, got input size "
            f"{x.shape}: instance norm takes statistics over the positions of (N, C, *). Use group "
            "or layer norm on an input without positions."
        )


def _need_last_axes(x: Tensor, shape: Sequence[int]) -> None:
    if not shape or tuple(x.shape[-len(shape) :]) != tuple(shape):
        raise ShapeError(
            f"Given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of size{list(x.shape)}. Build the "
            "layer with the sizes of the last axes, or move the channels last."
        )


def _need_channels(x: Tensor, weight: Tensor | None) -> None:
    if weight is not None and tuple(weight.shape) != (x.shape[1],):
        raise ShapeError(
            f"group norm has γ of shape {tuple(weight.shape)}, got {x.shape[1]} channels in shape "
            f"{tuple(x.shape)}. Build it with num_channels={x.shape[1]}, or move the channels to "
            "axis 1."
        )


def check_groups(groups: int, shape: Sequence[int]) -> None:
    """Raise `ShapeError` if `groups` does not divide the channels of an input (N, C, *)."""
    if len(shape) < 2:
        raise ShapeError(
            f"group norm takes an input (N, C, *) of at least 2 axes, got shape {tuple(shape)}. "
            "Add a batch axis with x.unsqueeze(0)."
        )
    if groups < 1 or shape[1] % groups:
        possible = [k for k in range(1, shape[1] + 1) if shape[1] % k == 0]
        raise ShapeError(
            f"num_channels ({shape[1]}) must be divisible by num_groups ({groups}). Possible "
            f"numbers of groups: {', '.join(map(str, possible))}."
        )


def check_activation(activation: Activation) -> None:
    """Raise `UnknownNameError` for a name that is no activation, `AnynormError` for no function."""
    if isinstance(activation, str):
        named_activation(activation)
    elif isinstance(activation, type):  # which would be built of the output, not applied to it
        name = activation.__name__
        raise AnynormError(
            f"activation={name} is a class; φ is a function. Give an instance: {name}()."
        )
    elif activation is not None and not callable(activation):
        raise AnynormError(
            f"activation={activation!r} is neither a name nor a function. Try activation='relu'."
        )


def activation_name(activation: Activation) -> str:
    """How `repr` shows an activation; empty where there is none."""
    if activation is None or isinstance(activation, torch.nn.Module):  # a module shows itself
        return ""
    return repr(activation) if isinstance(activation, str) else _function_name(activation)


def _function_name(function: Callable[[Tensor], Tensor]) -> str:
    return getattr(function, "__name__", type(function).__name__)
