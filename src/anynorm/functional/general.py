"""`normalize`: apply any specification to an input that fits its pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anynorm import ops
from anynorm.errors import AnynormError
from anynorm.functional.activation import Activation, following
from anynorm.functional.arguments import check_arguments, explain
from anynorm.functional.synced import together
from anynorm.ops import NO_SIZES, PLAIN, Affine, NormCall, Running
from anynorm.ops.process_groups import Sync
from anynorm.spec import Spec

__all__ = ["normalize", "normalize_weight", "scale_of"]


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
    residual: Tensor | None = None,
    sync: Sync = None,
    layer: str = "",
    mask: Tensor | None = None,
) -> Tensor:
    """Normalize an input by any specification: h = φ(γ · (x − μ) / σ + β + residual).

    The pattern of the specification says which axes of the input share one μ and one σ.

    Args:
        x: a tensor of real floating-point numbers.
        spec: the specification, such as ``Spec.of("[n] c [...]")``.
        weight, bias: γ and β, which start at the pattern's channel axis; None for 1 and 0.  Where
            the specification says γ = 1 + w, or one γ for all channels, `weight` is that.
        running: the running statistics.  They are updated in place in training, and used in
            evaluation.
        training: whether to use the statistics of this input.  Without `running` they are always
            used.
        eps: ε in σ = √(s² + ε), 0 or above.
        sizes: the sizes of the parts of split axes, by their names in the pattern.
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        residual: a tensor of the shape and type of `x`, which is added before φ.
        sync: whose values the statistics of a batch are taken over in training: True for all
            processes, a process group, one dimension of a device mesh, or a number of consecutive
            ranks.
        layer: the name of the layer in errors of a synchronised call.
        mask: a padding mask, a bool tensor: True for the values that count.  All others, whatever
            they are, have no part in statistics and gradients, and h is 0 there.  With a mask there
            is no second derivative.

    Shape:
        - x, residual: any shape that fits the pattern
        - mask: that of `x`, with 1 for any axis, or that of `x` without the channels
        - output: that of `x`

    Returns:
        h, of the shape and type of `x`.

    Raises:
        ShapeError: `x` does not fit the pattern, or the residual or the mask does not fit `x`.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool, or the
            specification has no statistics of the whole batch to synchronise.
        CollectiveError: A collective between processes failed.

    Example:
        >>> x = torch.randn(4, 6, 5)
        >>> normalize(x, Spec.of("n (g [c]) [...]"), sizes={"g": 2}).shape
        torch.Size([4, 6, 5])
        >>> valid = torch.arange(5) < torch.tensor([[5], [2], [4], [1]])  # (N, L)
        >>> normalize(x, Spec.of("[n] c [...]"), mask=valid)[1, :, 2:].abs().max()
        tensor(0.)
    """
    try:
        if eps < 0:
            check_arguments("normalize", {"eps": eps})
        plan = spec.pattern.plan(x.dim())
        ranks = together(spec, plan, sync, layer, x) if training and sync is not None else None
        epilogue, function = PLAIN, None
        if residual is not None or activation is not None:
            epilogue, function = following(x, residual, activation)
        if weight is not None and not spec.is_plain:
            weight = ops.gain(weight, spec.learned, x.shape[plan.first : plan.first + 1])
        affine, sizes = Affine(weight, bias), sizes or NO_SIZES
        training = training or running is None
        call = NormCall(
            *(spec, plan, affine, running, training, eps, sizes, epilogue, function, ranks, mask)
        )
        return ops.run(x, call)
    except AnynormError:
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError):
        _need_spec(spec)
        explain("normalize", x=x, weight=weight, bias=bias, eps=eps)
        raise


def normalize_weight(weight: Tensor, spec: Spec, gain: Tensor, eps: float) -> Tensor:
    """Normalize a weight, by the short way where torch's weight norm serves it.

    For a small weight, the way of :func:`normalize` takes longer than the operator.

    Args:
        weight: the weight.
        spec: the specification of a weight normalizer.
        gain: γ.
        eps: ε in σ = √(s² + ε), 0 or above.

    Shape:
        - weight: (O, I, *)
        - gain: (O,)
        - output: that of `weight`

    Returns:
        γ · (w − μ) / σ, of the type of `weight`.

    Raises:
        AnynormError: An argument has a wrong type or value.
        ShapeError: `weight` does not fit the pattern.

    Example:
        >>> spec = Spec.of("o [i ...]", center=False, scale="norm", on="weight")
        >>> normalize_weight(torch.tensor([[3.0, 4.0]]), spec, torch.ones(1), 0.0)
        tensor([[0.6000, 0.8000]])
    """
    if spec.is_plain and ops.torch_operators.takes_weight(weight, spec, gain, eps):
        return ops.torch_operators.weight_norm(weight, gain)
    return normalize(weight, spec, gain, eps=eps)


def scale_of(x: Tensor, spec: Spec, eps: float = 1e-5) -> Tensor:
    """Return σ of a tensor under a specification.

    Args:
        x: a tensor of real floating-point numbers.
        spec: the specification, whose pattern splits no axis.
        eps: ε in σ = √(s² + ε).

    Shape:
        - x: any that fits the pattern
        - output: that of `x`, with 1 in the axes that σ is taken over

    Returns:
        σ, of the type of `x`.

    Raises:
        AnynormError: An argument has a wrong type or value.
        ShapeError: `x` does not fit the pattern.

    Example:
        >>> scale_of(torch.tensor([[3.0, 4.0]]), Spec.of("o [i]", scale="norm"), eps=0.0)
        tensor([[5.]])
    """
    try:
        statistic = ops.statistic_of(spec, x, spec.pattern.plan(x.dim()).dims, eps)
        square = ops.formula.moments(x, statistic)[1]
        return torch.sqrt(ops.dialects.variance(square, eps, spec.dialect)).to(x.dtype)
    except (AttributeError, RuntimeError, TypeError):
        _need_spec(spec)
        explain("scale_of", x=x, eps=eps)
        raise


def _need_spec(spec: Any) -> None:
    if not isinstance(spec, Spec):
        raise AnynormError(
            f"spec={spec!r} is of type {type(spec).__name__}; it must be a Spec. Give "
            "Spec.of('[n] c [...]') for a pattern, or anynorm.catalogue[name].spec for a name."
        )
