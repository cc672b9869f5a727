"""One rule for each kind of operator: from the labels of its inputs to those of its output.

A rule may unite channels, lock them, and note where a parameter holds them.  An operator without
a rule locks whatever reaches it: channels are refused rather than guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from anynorm.surgery.channels.attention_rules import attention, product
from anynorm.surgery.channels.dense_rules import addmm, convolution, linear, transposed_convolution
from anynorm.surgery.channels.labels import uniform, varying
from anynorm.surgery.channels.meeting import fix, met, over
from anynorm.surgery.channels.operators import Operator, Parameter, tensors_in, unknown

__all__ = ["RULES"]

Rule = Callable[[Operator], Any]


def _same(op: Operator) -> Tensor:
    """Every value for itself: activations, dropout, changes of type."""
    x: Tensor = unknown(op) if tensors_in(op.args[1:]) else op.tensor(op.arg(0))
    return x


def _pairwise(op: Operator) -> Tensor:
    """Values of both inputs meet one by one: sums (residuals), products (gates)."""
    return met(op, *(op.tensor(value) for value in op.args[:2]))


def _prelu(op: Operator) -> Tensor:
    x, slopes = op.tensor(op.arg(0)), op.arg(1)
    if slopes.shape.numel() == 1:
        return x
    op.labels.at(slopes.name, 0, op.vector(x, 1))
    return x


def _positions(axes: int) -> Rule:
    """Pools, padding, resizing: only the last `axes` axes change."""

    def rule(op: Operator) -> Any:
        x = op.tensor(op.arg(0))
        return _collapsed(op, x, range(x.dim() - axes, x.dim()))

    return rule


def _padding(op: Operator) -> Any:
    x, amounts = op.tensor(op.arg(0)), op.arg(1)
    padded = [x.dim() - 1 - i for i in range(len(amounts) // 2) if any(amounts[2 * i : 2 * i + 2])]
    return _collapsed(op, x, padded)


def _collapsed(op: Operator, x: Tensor, axes: Sequence[int] | range) -> Any:
    """Labels that are the same along `axes`, whose sizes change."""
    if not uniform(x, axes):
        op.lock(x)
        return op.nothing()
    for axis in axes:
        x = x.narrow(axis, 0, 1)
    return x.expand(op.shape)


def _reduction(op: Operator) -> Any:
    """Means and other statistics over axes."""
    x, axes = op.tensor(op.arg(0)), op.arg(1)
    axes = range(x.dim()) if axes is None else [axes] if isinstance(axes, int) else axes
    if not isinstance(axes, (list, tuple, range)):
        return unknown(op)
    return over(op, x, axes, f"{op.name} over channels").reshape(op.shape)


def _softmax(op: Operator) -> Any:
    x = op.tensor(op.arg(0))
    return over(op, x, [op.arg(1)], f"{op.name} over channels").expand(op.shape)


def _moved(op: Operator) -> Any:
    """What only moves values about is done to the labels themselves."""
    args = [op.tensor(value) if isinstance(value, Parameter) else value for value in op.args]
    target = torch.ops.aten.reshape.default if op.name in _VIEWS else op.node.target
    if target is torch.ops.aten.reshape.default and not isinstance(args[1], (list, tuple)):
        args = [args[0], list(op.shape)]
    return target(*args, **op.kwargs)  # type: ignore[operator]


_VIEWS = ("view", "_unsafe_view", "view_as", "reshape_as")


def _split_axes(op: Operator) -> Any:
    """An axis of channels that may be split: what goes must leave a box."""
    labels = _moved(op)
    axes = varying(labels)
    if len(axes) > 1:
        op.labels.split(labels)
    for axis in axes:
        op.count(labels, axis)
    return labels


def _part(axis_at: int) -> Rule:
    """Part of an axis by numbers that stay as they are: no axis of channels."""

    def rule(op: Operator) -> Any:
        x, parts = op.tensor(op.arg(0)), _moved(op)
        whole = isinstance(parts, Tensor) and parts.shape == x.shape
        if not whole and not uniform(x, [op.arg(axis_at, 0)]):
            fix(op, x, op.arg(axis_at, 0), f"{op.name} at places given by numbers")
        return parts

    return rule


def _split(op: Operator) -> Any:
    """Parts of a size that is a number: they can lose channels if an attribute has the number."""
    parts, axis = _moved(op), op.arg(2, 0)
    if isinstance(op.arg(1), int) and not uniform(parts[0], [axis]) and op.count(parts[0], axis):
        return _chunks(op)
    return _part(2)(op)


def _chunks(op: Operator) -> Any:
    """Equal parts, which must stay equal."""
    parts, axis = _moved(op), op.arg(2, 0)
    x = op.tensor(op.arg(0))
    if uniform(x, [axis]):
        return parts
    if len({part.shape for part in parts}) > 1:
        op.lock(x, "chunk into parts of different sizes")
        return parts
    for part in parts[1:]:
        op.labels.unite(parts[0], part)
    return parts


def _joined(op: Operator) -> Any:
    """Concatenation: of channels one after the other, or of what has the same channels."""
    parts = [op.tensor(value) for value in op.arg(0)]
    axis = op.arg(1, 0) % len(op.shape)
    full = [part for part in parts if part.dim() == len(op.shape) and part.shape[axis]]
    for part in full[1:]:
        if uniform(part, [axis]) and uniform(full[0], [axis]):
            _pair_up(op, full[0].narrow(axis, 0, 1), part.narrow(axis, 0, 1))
    return torch.cat(full, axis)


def _pair_up(op: Operator, one: Tensor, other: Tensor) -> None:
    for labels, facing in ((one, other), (other, one)):
        op.lock(labels[facing == 0], f"{op.name} with values that are not cut")
    op.labels.unite(one, other)


def _embedding(op: Operator) -> Any:
    """Rows of a table: its columns are channels."""
    table = op.arg(0)
    if not isinstance(table, Parameter):
        return unknown(op)
    channels = op.labels.fresh(op.shape[-1])
    op.labels.at(table.name, 1, channels)
    return op.along(channels, len(op.shape) - 1)


def _channel_norm(op: Operator) -> Any:
    """Batch and instance norm: each channel for itself, with its γ, β and statistics."""
    x = op.tensor(op.arg(0))
    channels = op.vector(x, 1)
    for index in range(1, 5):
        if isinstance(state := op.arg(index), Parameter):
            op.labels.at(state.name, 0, channels)
            if index == 1:
                op.labels.scales.append(state.name)
        elif state is not None:
            op.lock(channels, f"{op.name} with numbers that are computed")
    return op.along(channels, 1)


def _last_axes_norm(op: Operator) -> Any:
    x = op.tensor(op.arg(0))
    over(op, x, range(-len(op.arg(1)), 0), f"{op.name} takes statistics over channels")
    return x  # also if locked: what is added to it stays for the same reason


def _group_norm(op: Operator) -> Any:
    x = op.tensor(op.arg(0))
    op.lock(x, f"{op.name} takes statistics over channels")
    return x


def _table() -> dict[str, Rule]:
    named: dict[Rule, str] = {
        _same: "relu relu6 hardtanh hardswish hardsigmoid silu gelu sigmoid tanh elu celu selu "
        "leaky_relu mish softplus softsign log_sigmoid clamp clamp_min clamp_max threshold "
        "dropout feature_dropout alpha_dropout feature_alpha_dropout neg abs exp expm1 log log1p "
        "sqrt rsqrt square reciprocal sin cos erf floor ceil round sign pow clone contiguous "
        "detach alias to _to_copy lift_fresh_copy type_as flip rsub",
        _pairwise: "add sub mul div maximum minimum masked_fill",
        _prelu: "prelu",
        _positions(1): "max_pool1d avg_pool1d adaptive_avg_pool1d upsample_nearest1d "
        "upsample_linear1d reflection_pad1d replication_pad1d",
        _positions(2): "max_pool2d avg_pool2d adaptive_avg_pool2d upsample_nearest2d "
        "upsample_bilinear2d upsample_bicubic2d reflection_pad2d replication_pad2d",
        _positions(3): "max_pool3d avg_pool3d adaptive_avg_pool3d upsample_nearest3d "
        "upsample_trilinear3d reflection_pad3d replication_pad3d",
        _padding: "pad constant_pad_nd",
        _reduction: "mean sum amax amin var std",
        _softmax: "softmax log_softmax _softmax",
        _split_axes: "view _unsafe_view view_as reshape reshape_as flatten unflatten",
        _moved: "permute transpose t numpy_T mT movedim squeeze unsqueeze expand expand_as repeat "
        "swapaxes channel_shuffle pixel_shuffle pixel_unshuffle",
        _part(1): "select slice narrow unbind",
        _part(2): "split_with_sizes",
        _split: "split",
        _chunks: "chunk",
        _joined: "cat concat concatenate",
        linear: "linear",
        addmm: "addmm",
        convolution: "conv1d conv2d conv3d",
        transposed_convolution: "conv_transpose1d conv_transpose2d conv_transpose3d",
        _embedding: "embedding",
        product: "matmul bmm",
        attention: "scaled_dot_product_attention",
        Operator.nothing: "_assert_tensor_metadata",
        _channel_norm: "batch_norm instance_norm _native_batch_norm_legit_no_training",
        _last_axes_norm: "layer_norm rms_norm",
        _group_norm: "group_norm",
    }
    return {name: rule for rule, names in named.items() for name in names.split()}


RULES: dict[str, Rule] = _table()
