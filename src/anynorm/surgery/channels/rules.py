"""One rule for each kind of operator: from the labels of its inputs to those of its output.

A rule may unite channels, lock them, and note where a parameter holds them.  An operator without
a rule locks whatever reaches it: channels are refused rather than guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_map_only

from anynorm.surgery.channels.labels import Labels, Number, Use, dense_arguments, uniform, varying

__all__ = ["RULES", "Operator", "Parameter", "lock", "operator_name", "unknown"]


def operator_name(node: Node) -> str:
    """The name of the operator that `node` calls, such as conv2d."""
    return str(node.target).removeprefix("aten.").partition(".")[0]


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer as the argument of an operator."""

    name: str
    shape: torch.Size


@dataclass(frozen=True)
class Operator:
    """An operator of the graph, with its arguments as labels and `Parameter`s.

    `module` runs it, and has the whole numbers `numbers` in its attributes.
    """

    node: Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Labels
    module: str
    numbers: Mapping[str, int]

    @property
    def name(self) -> str:
        """The operator's name, such as conv2d."""
        return operator_name(self.node)

    def arg(self, index: int, default: Any = None) -> Any:
        """The argument at `index`, by position or by the name that the schema gives it."""
        if index < len(self.args):
            return self.args[index]
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        named = self.kwargs.get(schema[index].name) if index < len(schema) else None
        return default if named is None else named

    def tensor(self, value: Any) -> Tensor:
        """The labels of an argument; those of a parameter lie along its only long axis."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Parameter):
            return self._labelled(value)
        return torch.zeros((), dtype=torch.int64)

    def _labelled(self, parameter: Parameter) -> Tensor:
        labels = torch.zeros(parameter.shape, dtype=torch.int64)
        long = [axis for axis, size in enumerate(parameter.shape) if size > 1]
        if len(long) != 1:
            self.labels.keep(parameter.name, f"{self.name} takes all of '{parameter.name}'")
            return labels
        fresh = self.labels.fresh(parameter.shape[long[0]])
        self.labels.at(parameter.name, long[0], fresh)
        return fresh.reshape(parameter.shape)

    def vector(self, labels: Tensor, axis: int) -> Tensor:
        """Labels along one axis; what lies at one place of it alone is one channel from now on.

        Channels that lie at several places of it, along other axes, are locked, and the labels 0.
        """
        others = [other for other in range(labels.dim()) if other != axis % labels.dim()]
        if not uniform(labels, others) and not self._gathered(labels, axis):
            self.lock(labels)
            return torch.zeros(labels.shape[axis], dtype=torch.int64)
        for other in reversed(others):
            labels = labels.select(other, 0)
        return labels

    def _gathered(self, labels: Tensor, axis: int) -> bool:
        """Unite what lies at each place of an axis; False where that would unite places."""
        kept = {*varying(labels), axis % labels.dim()}
        for other in set(range(labels.dim())) - kept:
            labels = labels.narrow(other, 0, 1)
        rows = labels.movedim(axis, 0).flatten(1)
        places = torch.arange(len(rows))[:, None].expand_as(rows)
        at = torch.stack([self.labels.roots(rows), places], -1).flatten(0, 1).unique(dim=0)
        at = at[at[:, 0] != 0]
        if len(at) > len(at[:, 0].unique()):
            return False
        self.lock(rows[(rows == 0).any(1)], f"{self.name} with values that are not cut")
        self.labels.unite(rows, rows[:, :1])
        return True

    def along(self, vector: Tensor, axis: int) -> Tensor:
        """The output's labels, which are those of `vector` along `axis`."""
        shape = [1] * len(self.shape)
        shape[axis] = -1
        return vector.reshape(shape).expand(self.shape)

    def count(self, labels: Tensor, axis: int) -> bool:
        """Note which attributes of the module have the size of an axis; False if none has."""
        names = [name for name, number in self.numbers.items() if number == labels.shape[axis]]
        for other in set(range(labels.dim())) - {axis % labels.dim(), *varying(labels)}:
            labels = labels.narrow(other, 0, 1)
        places = labels.movedim(axis, 0).flatten(1)
        self.labels.numbers += [Number(self.module, name, places) for name in names]
        return bool(names)

    @property
    def operands(self) -> list[Any]:
        """All labels and `Parameter`s among the arguments, in lists too."""
        return _tensors([self.args, list(self.kwargs.values())])

    def lock(self, labels: Tensor, why: str = "") -> None:
        """Lock channels on account of this operator."""
        self.labels.lock(labels, why or f"{self.name} has no rule for them")

    def nothing(self) -> Any:
        """The labels of an output, or of several, without channels."""
        zero = torch.zeros((), dtype=torch.int64)
        return tree_map_only(Tensor, lambda t: zero.expand(t.shape), self.node.meta.get("val"))

    @property
    def shape(self) -> torch.Size:
        """The shape of the output."""
        shape: torch.Size = self.node.meta["val"].shape
        return shape


Rule = Callable[[Operator], Any]


def unknown(op: Operator) -> Any:
    """Lock all that goes in."""
    lock(op, f"{op.name} has no rule")
    return op.nothing()


def lock(op: Operator, why: str) -> None:
    """Lock all that goes in, for the reason given."""
    for operand in op.operands:
        op.lock(op.tensor(operand), why)


def _tensors(values: Any) -> list[Any]:
    if isinstance(values, (tuple, list)):
        return [inner for value in values for inner in _tensors(value)]
    return [values] if isinstance(values, (Tensor, Parameter)) else []


def _same(op: Operator) -> Tensor:
    """Every value for itself: activations, dropout, changes of type."""
    x: Tensor = unknown(op) if _tensors(op.args[1:]) else op.tensor(op.arg(0))
    return x


def _pairwise(op: Operator) -> Tensor:
    """Values of both inputs meet one by one: sums (residuals), products (gates)."""
    return _met(op, *(op.tensor(value) for value in op.args[:2]))


def _met(op: Operator, one: Tensor, other: Tensor) -> Tensor:
    """The labels of values that meet one by one."""
    one, other = _against(op, one, other), _against(op, other, one)
    op.labels.unite(one, other)
    one, other = torch.broadcast_tensors(one, other)
    return torch.where(one != 0, one, other)


def _against(op: Operator, labels: Tensor, facing: Tensor) -> Tensor:
    """Lock channels that meet values of no channel along their own axis: those stay as many.

    A vector along another axis than that of the channels stays too, such as the angles for the
    values of each head.  Returns the labels, 0 for such a vector.
    """
    why = f"{op.name} with values that are not cut"
    for axis in _shared(labels, facing):
        if not facing.any() or _crosses(op, facing, labels):
            _fix(op, labels, axis, why)
        else:
            both = torch.broadcast_tensors(labels, facing)
            op.lock(both[0][both[1] == 0], why)
    if _crosses(op, labels, facing):
        op.lock(labels, why)
        return torch.zeros_like(labels)
    return labels


def _shared(labels: Tensor, facing: Tensor) -> list[int]:
    """The axes along which labels vary that `facing` has too."""
    sizes = [1] * (labels.dim() - facing.dim()) + list(facing.shape[-labels.dim() :])
    return [axis for axis in varying(labels) if sizes[axis] > 1]


def _crosses(op: Operator, vector: Tensor, labels: Tensor) -> bool:
    """Whether a vector lies along one axis of `labels`, which are channels along another one."""
    if not _shared(vector, labels):
        return False
    others = set(varying(labels)) - set(_shared(labels, vector))
    return bool(others) and not uniform(op.labels.roots(labels), others)


def _fix(op: Operator, labels: Tensor, axis: int, why: str) -> Tensor:
    """Let an axis keep its size: what lies along it goes together, or not at all.

    So the values of a head of attention become one channel.  Returns the labels across the axis.
    """
    axis %= labels.dim()
    across, rows = labels.narrow(axis, 0, 1), labels
    for other in set(range(labels.dim())) - set(varying(labels)):
        rows = rows.narrow(other, 0, 1)
    if set(varying(op.labels.roots(rows))) <= {axis}:
        op.lock(rows, why)
        return torch.zeros_like(across)
    op.lock(rows[(rows == 0).any(axis, keepdim=True).expand_as(rows)], why)
    op.labels.unite(rows, rows.narrow(axis, 0, 1))
    return across


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
    return _over(op, x, axes, f"{op.name} over channels").reshape(op.shape)


def _over(op: Operator, x: Tensor, axes: Sequence[int] | range, why: str) -> Tensor:
    """The labels across axes whose values are taken together, and which keep their size."""
    for axis in axes:
        x = x.narrow(axis, 0, 1) if uniform(x, [axis]) else _fix(op, x, axis, why)
    return x


def _softmax(op: Operator) -> Any:
    x = op.tensor(op.arg(0))
    return _over(op, x, [op.arg(1)], f"{op.name} over channels").expand(op.shape)


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
            _fix(op, x, op.arg(axis_at, 0), f"{op.name} at places given by numbers")
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


def _linear(op: Operator) -> Any:
    incoming = op.vector(op.tensor(op.arg(0)), -1)
    outgoing = _connected(op, incoming, op.shape[-1], 1, transposed=False)
    return op.along(outgoing, len(op.shape) - 1)


def _addmm(op: Operator) -> Any:
    """A linear layer whose weight is (inputs, outputs)."""
    if op.kwargs:  # factors of the product and of the bias
        return unknown(op)
    incoming = op.vector(op.tensor(op.arg(1)), -1)
    return op.along(_connected(op, incoming, op.shape[-1], 1, transposed=True), 1)


def _convolution(op: Operator, *, transposed: bool = False) -> Any:
    x, groups = op.tensor(op.arg(0)), op.arg(6, 1)
    axis = x.dim() - _rank(op) - 1
    outgoing = _connected(op, op.vector(x, axis), op.shape[axis], groups, transposed)
    return op.along(outgoing, axis)


def _rank(op: Operator) -> int:
    """How many axes are positions: the digit of the operator's name."""
    return int(op.name.removesuffix("d")[-1])


def _transposed(op: Operator) -> Any:
    return _convolution(op, transposed=True)


def _connected(op: Operator, incoming: Tensor, count: int, groups: int, transposed: bool) -> Tensor:
    """The labels of `count` outputs of a layer whose weight connects them to the inputs."""
    _, weight, bias = map(op.arg, dense_arguments(op.node))
    if not isinstance(weight, Parameter):
        op.lock(incoming, f"{op.name} with a weight that is computed")
        return torch.zeros(count, dtype=torch.int64)
    name = bias.name if isinstance(bias, Parameter) else None
    op.labels.uses.append(Use(op.node, weight.name, name, groups, transposed))
    connect = _depthwise if groups == len(incoming) > 1 else _dense
    outgoing = connect(op, weight, incoming, count, groups, transposed)
    if isinstance(bias, Parameter):
        op.labels.at(bias.name, 0, outgoing)
    elif bias is not None:
        op.lock(outgoing, f"{op.name} with a bias that is computed")
    return outgoing


def _depthwise(
    op: Operator, weight: Parameter, incoming: Tensor, count: int, groups: int, transposed: bool
) -> Tensor:
    """One input for each group: outputs are of the channel that they come from."""
    outgoing = incoming.repeat_interleave(count // groups)
    op.labels.at(weight.name, 0, incoming if transposed else outgoing)
    return outgoing


def _dense(
    op: Operator, weight: Parameter, incoming: Tensor, count: int, groups: int, transposed: bool
) -> Tensor:
    """Every input of a group to every output: all groups lose the same places."""
    outgoing = op.labels.fresh(count)
    for labels in (incoming, outgoing):
        rows = labels.reshape(groups, -1)
        op.lock(rows[:, (rows == 0).any(0)], f"{op.name} in groups with values that are not cut")
        op.labels.unite(rows, rows[:1])
    first = [labels.reshape(groups, -1)[0] for labels in (incoming, outgoing)]
    op.labels.at(weight.name, 0, incoming if transposed else outgoing, reads=transposed)
    op.labels.at(weight.name, 1, first[1 if transposed else 0], reads=not transposed)
    return outgoing


def _product(op: Operator) -> Tensor:
    """A product of matrices that are both computed, such as queries and keys, for each head."""
    return _for_each(op, _met(op, *(_matrices(op, op.tensor(op.arg(at))) for at in range(2))))


def _attention(op: Operator) -> Tensor:
    """Scaled dot product attention: each head is one channel."""
    query, key, value, mask = (_matrices(op, op.tensor(op.arg(at))) for at in range(4))
    repeats = query.shape[-1] // key.shape[-1] if op.arg(7, False) else 1
    key, value = (labels.repeat_interleave(repeats, -1) for labels in (key, value))
    return _for_each(op, _met(op, _met(op, _met(op, query, key), value), mask))


def _matrices(op: Operator, labels: Tensor) -> Tensor:
    """The channel of each matrix in a tensor: all of its values go together."""
    axes = range(-min(2, labels.dim()), 0)
    across = _over(op, labels, axes, f"{op.name} over channels")
    return across.flatten(axes.start).select(-1, 0) if axes else across


def _for_each(op: Operator, matrices: Tensor) -> Tensor:
    """The output's labels, by those of its matrices."""
    behind = [1] * (len(op.shape) - matrices.dim())
    return matrices.reshape(*matrices.shape, *behind).expand(op.shape)


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
    _over(op, x, range(-len(op.arg(1)), 0), f"{op.name} takes statistics over channels")
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
        _linear: "linear",
        _addmm: "addmm",
        _convolution: "conv1d conv2d conv3d",
        _transposed: "conv_transpose1d conv_transpose2d conv_transpose3d",
        _embedding: "embedding",
        _product: "matmul bmm",
        _attention: "scaled_dot_product_attention",
        Operator.nothing: "_assert_tensor_metadata",
        _channel_norm: "batch_norm instance_norm _native_batch_norm_legit_no_training",
        _last_axes_norm: "layer_norm rms_norm",
        _group_norm: "group_norm",
    }
    return {name: rule for rule, names in named.items() for name in names.split()}


RULES: dict[str, Rule] = _table()
