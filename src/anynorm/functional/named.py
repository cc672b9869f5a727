"""The normalizers that torch.nn.functional has too, with its signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    """Batch norm, as :func:`torch.nn.functional.batch_norm`.

    Each channel has one μ and one σ, over samples and positions.  Added to torch's arguments are
    the activation, the residual and the mask, and statistics that are not finite never enter the
    running statistics.

    Args:
        input: a tensor of real floating-point numbers.
        running_mean, running_var: the running statistics.  They are updated in place in training,
            and used in evaluation.  Where both are None, none are kept.
        weight, bias: γ and β; None for 1 and 0.
        training: whether the statistics are those of this batch.  Otherwise they are the running
            ones.
        momentum: the weight of this batch in the running statistics, from 0 to 1.  None averages
            over all batches and needs `num_batches_tracked`.
        eps: ε in σ = √(s² + ε), above 0.
        num_batches_tracked: the number of batches so far, as a tensor.  It is increased in place.
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        residual: a tensor of the input's shape and type, which is added before φ.
        mask: a padding mask, a bool tensor: True for the values that count.  All others have no
            part in statistics and gradients, and become 0.  With a mask there is no second
            derivative.

    Shape:
        - input, residual: (N, C, *)
        - running_mean, running_var, weight, bias: (C,)
        - mask: (N, *), or (N, C, *) with 1 for any axis
        - output: (N, C, *)

    Returns:
        φ(γ · (x − μ) / σ + β + residual), of the input's shape and type.

    Raises:
        ShapeError: In training, the input has fewer than 2 axes or a single value per channel; or
            parameters, statistics, the residual or the mask do not fit the input.
        AnynormError: An argument has a wrong type or value, or running statistics are missing in
            evaluation.

    Example:
        >>> x = torch.randn(8, 3, 5, 5)
        >>> batch_norm(x, None, None, training=True).mean((0, 2, 3)).abs().max() < 1e-6
        tensor(True)

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
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
        epilogue, function = PLAIN, None
        if residual is not None or activation is not None:
            epilogue, function = following(input, residual, activation)
        # torch's operator takes (C,) as well, in evaluation
        plan, affine = _BATCH.pattern.plan(max(input.dim(), 2)), Affine(weight, bias)
        rest = epilogue, function, None, mask
        call = NormCall(_BATCH, plan, affine, running, training, eps, NO_SIZES, *rest)
        return ops.run(input, call, ops.torch_operators.batch)
    except _FAILED:
        _explain_channels("batch_norm", "num_features", locals())
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
    """Instance norm, as :func:`torch.nn.functional.instance_norm`.

    Each channel of each sample has one μ and one σ, over positions.

    Args:
        input: a tensor of real floating-point numbers.
        running_mean, running_var: the running statistics.  They are updated in place where
            `use_input_stats` is True, and used otherwise.  Where both are None, none are kept.
        weight, bias: γ and β; None for 1 and 0.
        use_input_stats: whether the statistics are those of the input.
        momentum: the weight of this batch in the running statistics, from 0 to 1.
        eps: ε in σ = √(s² + ε).
        activation, residual, mask: as for :func:`batch_norm`.

    Shape:
        - input, residual: (N, C, *)
        - running_mean, running_var, weight, bias: (C,)
        - mask: (N, *), or (N, C, *) with 1 for any axis
        - output: (N, C, *)

    Returns:
        φ(γ · (x − μ) / σ + β + residual), of the input's shape and type.

    Raises:
        ShapeError: There is a single value per instance; or parameters, statistics, the residual
            or the mask do not fit the input.
        AnynormError: An argument has a wrong type or value.

    Example:
        >>> instance_norm(torch.randn(2, 3, 16)).shape
        torch.Size([2, 3, 16])

    Reference:
        Ulyanov et al. 2016, arXiv:1607.08022.
    """
    try:
        if use_input_stats:
            need_several_positions(input)
        running = None
        if running_mean is not None and running_var is not None:
            running = Running(running_mean, running_var, None, momentum)
        epilogue, function = following(input, residual, activation)
        plan, affine = _INSTANCE.pattern.plan(input.dim()), Affine(weight, bias)
        call = NormCall(
            *(_INSTANCE, plan, affine, running, use_input_stats, eps, NO_SIZES),
            *(epilogue, function, None, mask),
        )
        return ops.run(input, call, ops.torch_operators.instance)
    except _FAILED:
        _explain_channels("instance_norm", "num_features", locals())
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
    """Layer norm over the last axes, as :func:`torch.nn.functional.layer_norm`.

    Args:
        input: a tensor of real floating-point numbers.
        normalized_shape: the sizes of the last axes, which share one μ and one σ.
        weight, bias: γ and β; None for 1 and 0.
        eps: ε in σ = √(s² + ε).
        activation, residual: as for :func:`batch_norm`.

    Shape:
        - input, residual: (*, normalized_shape)
        - weight, bias: normalized_shape
        - output: (*, normalized_shape)

    Returns:
        φ(γ · (x − μ) / σ + β + residual), of the input's shape and type.

    Raises:
        ShapeError: The input does not end in `normalized_shape`, or the residual does not fit the
            input.
        AnynormError: An argument has a wrong type or value.

    Example:
        >>> layer_norm(torch.randn(2, 7, 10), (10,)).shape
        torch.Size([2, 7, 10])

    Reference:
        Ba et al. 2016, arXiv:1607.06450.
    """
    try:
        epilogue, function = following(input, residual, activation)
        y = ops.torch_operators.layer(input, normalized_shape, weight, bias, eps, epilogue)
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
    """RMS norm over the last axes, as :func:`torch.nn.functional.rms_norm`.

    It is layer norm without μ: σ is the root mean square.

    Args:
        input: a tensor of real floating-point numbers.
        normalized_shape: the sizes of the last axes, which share one σ.
        weight: γ; None for 1.
        eps: ε in σ = √(s² + ε); None for the machine epsilon, as in torch.
        activation, residual: as for :func:`batch_norm`.

    Shape:
        - input, residual: (*, normalized_shape)
        - weight: normalized_shape
        - output: (*, normalized_shape)

    Returns:
        φ(γ · x / σ + residual), of the input's shape and type.

    Raises:
        ShapeError: The input does not end in `normalized_shape`, or the residual does not fit the
            input.
        AnynormError: An argument has a wrong type or value.

    Example:
        >>> rms_norm(torch.tensor([[3.0, 4.0]]), (2,))
        tensor([[0.8485, 1.1314]])

    Reference:
        Zhang & Sennrich 2019, arXiv:1910.07467.
    """
    try:
        epilogue, function = following(input, residual, activation)
        y = ops.torch_operators.rms(input, normalized_shape, weight, eps, epilogue)
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
    """Group norm, as :func:`torch.nn.functional.group_norm`.

    Each group of channels of each sample has one μ and one σ, over its channels and positions.

    Args:
        input: a tensor of real floating-point numbers.
        num_groups: the number of groups, which divides the channels.
        weight, bias: γ and β; None for 1 and 0.
        eps: ε in σ = √(s² + ε).
        activation, residual, mask: as for :func:`batch_norm`.

    Shape:
        - input, residual: (N, C, *)
        - weight, bias: (C,)
        - mask: (N, *), or (N, C, *) with 1 for any axis
        - output: (N, C, *)

    Returns:
        φ(γ · (x − μ) / σ + β + residual), of the input's shape and type.

    Raises:
        ShapeError: `num_groups` does not divide C, `weight` is not one for each channel, or the
            residual or the mask does not fit the input.
        AnynormError: An argument has a wrong type or value.

    Example:
        >>> group_norm(torch.randn(2, 6, 4), 3).shape
        torch.Size([2, 6, 4])

    Reference:
        Wu & He 2018, arXiv:1803.08494.
    """
    try:
        check_groups(num_groups, input.shape)
        if mask is not None:
            need_channels(input, "num_channels", weight=weight, bias=bias)
        epilogue, function = following(input, residual, activation)
        plan, affine = _GROUP.pattern.plan(input.dim()), Affine(weight, bias)
        call = NormCall(
            *(_GROUP, plan, affine, None, True, eps, {"g": num_groups}),
            *(epilogue, function, None, mask),
        )
        return ops.run(input, call, ops.torch_operators.group)
    except AnynormError:
        raise
    except _FAILED:
        _explain_channels("group_norm", "num_channels", locals())
        raise


def _explain_channels(function: str, argument: str, given: dict[str, Any]) -> None:
    """Raise the reason why a call with parameters or statistics for each channel failed."""
    explain(function, **given)
    names = ("weight", "bias", "running_mean", "running_var")
    vectors = {name: given[name] for name in names if name in given}
    need_channels(given["input"], argument, **vectors)
