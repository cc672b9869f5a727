"""The normalizers that torch.nn.functional has too, with its signatures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from anynorm import ops
from anynorm.errors import AnynormError
from anynorm.functional.activation import Activation, following
from anynorm.functional.arguments import explain
from anynorm.ops import NO_SIZES, PLAIN, Affine, NormCall, Running
from anynorm.ops.checks import (
    check_groups,
    need_channels,
    need_last_axes,
    need_several_positions,
    need_several_values,
)
from anynorm.spec import Spec

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]

# What torch and Python raise for wrong arguments.  The reason is looked for only then.
_FAILED = (AttributeError, RuntimeError, TypeError, ValueError)

_BATCH, _INSTANCE = Spec.of("[n] c [...]"), Spec.of("n c [...]")
_GROUP = Spec.of("n (g [c]) [...]")


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
    residual: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Batch norm of `input` (N, C, *) → (N, C, *), as :func:`torch.nn.functional.batch_norm`.

    `activation`: φ, the name of one in :data:`anynorm.activations.ACTIVATIONS` or a function;
    `residual`: a tensor of the input's shape and type, which is added before φ.
    `mask`: a bool tensor (N, *), True for the values that count, or of the input's shape with 1 for
    any axis; all others (padding) have no part in statistics and gradients, and become 0.
    Running statistics of shape (C,) are updated in place in training, never by values that are
    not finite.  A `momentum` of None averages over all batches and needs `num_batches_tracked`.
    Raises `ShapeError` for fewer than 2 axes, channels that do not match, or a single value per
    channel in training.  Ioffe & Szegedy 2015, arXiv:1502.03167.

    >>> x = torch.randn(8, 3, 5, 5)
    >>> batch_norm(x, None, None, training=True).mean((0, 2, 3)).abs().max() < 1e-6
    tensor(True)
    """
    try:
        if eps <= 0:
            raise AnynormError(f"eps must be positive, got {eps}: σ = sqrt(s² + ε). Try eps=1e-5.")
        if training:
            if input.dim() < 2 or input.numel() == input.shape[1]:
                need_several_values(input)
        elif running_mean is None or running_var is None:
            raise AnynormError(
                "batch norm in evaluation needs running_mean and running_var, and got None. Pass "
                "them, or training=True to take the statistics of this batch."
            )
        running = None
        if running_mean is not None and running_var is not None:
            running = Running(running_mean, running_var, num_batches_tracked, momentum)
        after, function = PLAIN, None
        if residual is not None or activation is not None:
            after, function = following(input, residual, activation)
        # torch's operator takes (C,) as well, in evaluation
        plan, affine = _BATCH.pattern.plan(max(input.dim(), 2)), Affine(weight, bias)
        call = NormCall(
            *(_BATCH, plan, affine, running, training, eps, NO_SIZES, after, function, None, mask)
        )
        return ops.run(input, call, ops.torch_operators.batch)
    except _FAILED:
        explain("batch_norm", **locals())
        raise


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
    residual: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Instance norm of `input` (N, C, *), as :func:`torch.nn.functional.instance_norm`.

    `activation`, `residual` and `mask` as in :func:`batch_norm`.  Raises `ShapeError` for a single
    value per instance.  Ulyanov et al. 2016, arXiv:1607.08022.

    >>> instance_norm(torch.randn(2, 3, 16)).shape
    torch.Size([2, 3, 16])
    """
    try:
        if use_input_stats:
            need_several_positions(input)
        running = None
        if running_mean is not None and running_var is not None:
            running = Running(running_mean, running_var, None, momentum)
        after, function = following(input, residual, activation)
        plan, affine = _INSTANCE.pattern.plan(input.dim()), Affine(weight, bias)
        call = NormCall(
            *(_INSTANCE, plan, affine, running, use_input_stats, eps, NO_SIZES),
            *(after, function, None, mask),
        )
        return ops.run(input, call, ops.torch_operators.instance)
    except _FAILED:
        explain("instance_norm", **locals())
        raise


def layer_norm(
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Layer norm over the last axes of `input`, as :func:`torch.nn.functional.layer_norm`.

    `activation` and `residual` as in :func:`batch_norm`.  Raises `ShapeError` if the input does not
    end in `normalized_shape`.  Ba et al. 2016, arXiv:1607.06450.

    >>> layer_norm(torch.randn(2, 7, 10), (10,)).shape
    torch.Size([2, 7, 10])
    """
    try:
        after, function = following(input, residual, activation)
        y = ops.torch_operators.layer(input, normalized_shape, weight, bias, eps, after)
        return y if function is None else function(y)
    except AnynormError:
        raise
    except _FAILED:
        explain("layer_norm", **locals())
        need_last_axes(input, normalized_shape)
        raise


def rms_norm(
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    activation: Activation = None,
    residual: Tensor | None = None,
) -> Tensor:
    """RMS norm over the last axes of `input`, as :func:`torch.nn.functional.rms_norm`.

    `activation` and `residual` as in :func:`batch_norm`.  Raises `ShapeError` if the input does not
    end in `normalized_shape`.  Zhang & Sennrich 2019, arXiv:1910.07467.

    >>> rms_norm(torch.tensor([[3.0, 4.0]]), (2,))
    tensor([[0.8485, 1.1314]])
    """
    try:
        after, function = following(input, residual, activation)
        y = ops.torch_operators.rms(input, normalized_shape, weight, eps, after)
        return y if function is None else function(y)
    except AnynormError:
        raise
    except _FAILED:
        given = locals() if eps is not None else {**locals(), "eps": 0.0}
        explain("rms_norm", **given)
        need_last_axes(input, normalized_shape)
        raise


def group_norm(
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    residual: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Group norm of `input` (N, C, *), as :func:`torch.nn.functional.group_norm`.

    `activation`, `residual` and `mask` as in :func:`batch_norm`.  Raises `ShapeError` if
    `num_groups` does not divide C, or `weight` is not one for each channel.  Wu & He 2018,
    arXiv:1803.08494.

    >>> group_norm(torch.randn(2, 6, 4), 3).shape
    torch.Size([2, 6, 4])
    """
    try:
        check_groups(num_groups, input.shape)
        if mask is not None:
            need_channels(input, weight)
        after, function = following(input, residual, activation)
        plan, affine = _GROUP.pattern.plan(input.dim()), Affine(weight, bias)
        call = NormCall(
            *(_GROUP, plan, affine, None, True, eps, {"g": num_groups}),
            *(after, function, None, mask),
        )
        return ops.run(input, call, ops.torch_operators.group)
    except AnynormError:
        raise
    except _FAILED:
        explain("group_norm", **locals())
        need_channels(input, weight)
        raise
