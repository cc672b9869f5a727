"""Make layer norms RMS norms: centre what writes to the residual stream that they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.fx import Node

from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.call_info import Seen
from anynorm.surgery.converting.targets import to_kind
from anynorm.surgery.folding.stream import Stream, Writer, stream_of
from anynorm.surgery.folding.weighted import State
from anynorm.surgery.graph import capture
from anynorm.surgery.model import check_model
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.receipt import Log, Model, Result
from anynorm.surgery.recognized import find_on
from anynorm.surgery.refused import Refused
from anynorm.surgery.replace import leave_fast_path
from anynorm.surgery.streaming_stats import double
from anynorm.surgery.transaction import Trial, perform
from anynorm.surgery.transfer_hooks import succeed
from anynorm.surgery.unmatched import Search
from anynorm.surgery.walk import put

__all__ = ["center"]


def center(
    model: Model,
    example: Batch,
    *,
    forward: Forward | None = None,
    inplace: bool = False,
    tolerance: float | None = 1e-4,
) -> Result[Model]:
    """Make the layer norms of a pre-norm model RMS norms, without changing what it computes.

    A layer norm subtracts the mean of the channels.  If everything that is added to the residual
    stream has a mean of 0 already, it is an RMS norm.  So the mean over the channels is subtracted
    from the weights and biases that write to the stream: embeddings, and the last layer of each
    block.  This is possible if nothing but layer norms reads the stream, as in pre-norm models;
    the receipt names the layer norms for which it is not, with the reason.  New weights are
    computed in float64 and rounded once.

    γ, β, names in the state dict, hooks and modes stay.  :func:`anynorm.fold` puts γ and β into
    the layers behind.

    Args:
        model: the model.
        example: an input, as a loader gives it.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).
        inplace: whether to change the model itself instead of a copy.
        tolerance: the largest difference of the outputs on the example, relative to their largest
            value; above it everything is undone.  None allows any.

    Returns:
        The model and the receipt.

    Raises:
        AnynormError: The model cannot be copied, called on the example, or exported.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        >>> result = center(model, torch.randn(5, 3))
        >>> result.model[1]
        Norm('... [c]', 4, scale='rms', center=False, eps=1e-05, bias=True)

    Reference:
        Ashkboos et al. 2024, arXiv:2401.15024 (SliceGPT); Jiang et al. 2023, arXiv:2305.14858.
    """
    check_model("center", model)

    def change(target: nn.Module, log: Log) -> nn.Module:
        log.search = Search("layer norms", _why_not)
        log.found = find_on(target, example, forward)
        state = State(target, capture(target, example, forward))
        norms = [norm for norm in log.found.norms if not _why_not(norm)]
        left = list(norms)
        while left:
            target = _centred(target, left, _by_node(norms, state), state, log)
        leave_fast_path(target)
        return target

    trial = Trial(example, forward, tolerance)
    return perform("center", model, change, trial, inplace=inplace)


def _why_not(norm: Normalizer) -> str:
    """Why a normalizer cannot become an RMS norm; "" if it may."""
    if not norm.known:
        return norm.doubt
    spec = norm.spec
    if not spec.center:
        return "it subtracts no mean"
    own = len(getattr(norm.layer, "normalized_shape", ()) or (1,)) == 1
    if norm.family not in ("layer", "layer-over-channels") or not own:
        return "it takes statistics over other axes than the channels"
    return "an activation follows inside the layer" if norm.activation is not None else ""


def _by_node(norms: Iterable[Normalizer], state: State) -> dict[Node, Normalizer]:
    return {
        node: norm
        for norm in norms
        for name in norm.place.names
        for call in state.graph.calls.get(name, ())
        for node in call.nodes
    }


def _centred(
    model: nn.Module,
    left: list[Normalizer],
    by_node: Mapping[Node, Normalizer],
    state: State,
    log: Log,
) -> nn.Module:
    """Centre the stream of the first of `left`, and take its layer norms from the list."""
    first = left[0]
    try:
        stream = stream_of(first, by_node, state)
        for writer in stream.writers:
            _check(writer, stream, state)
        made = [(norm, _root_mean_square(norm)) for norm in stream.norms]
    except Refused as reason:
        left.remove(first)
        log.refuse(first.name, str(reason))
        return model
    _write(stream, state)
    names = sorted({writer.name for writer in stream.writers})
    log.facts["centred"] = (*log.facts.get("centred", ()), *names)
    for norm, new in made:
        model = put(model, norm.place, succeed(norm.module, new))
        log.change(norm.name, f"{type(norm.module).__name__} to {type(new).__name__}")
        left.remove(norm)
    return model


def _check(writer: Writer, stream: Stream, state: State) -> None:
    """Raise `Refused` unless a parameter does nothing else than to write to the stream."""
    same = [one for one in stream.writers if one.name == writer.name]
    reason = state.obstacle(writer.name, {node for one in same for node in one.users})
    if not reason and len({one.axis for one in same}) > 1:
        reason = "has its channels on two axes"
    if reason:
        raise Refused(f"{writer.name!r} writes to the stream and {reason}")


def _root_mean_square(norm: Normalizer) -> nn.Module:
    made = to_kind(norm, "rms", Seen(), {"eps": norm.layer.eps})
    assert made is not None
    return made[0]


@torch.no_grad()
def _write(stream: Stream, state: State) -> None:
    """Subtract the mean over the channels of what is written."""
    for name, axis in {writer.name: writer.axis for writer in stream.writers}.items():
        parameter = state.named(name)
        wide = double(parameter)
        parameter.copy_(wide - wide.mean(axis, keepdim=True))
