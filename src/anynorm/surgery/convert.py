"""Convert normalizers to other normalizers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from torch import nn

from anynorm.errors import AnynormError, UnknownNameError, listed
from anynorm.surgery.batches import Batch, Forward, each, once
from anynorm.surgery.call_info import Seen
from anynorm.surgery.converting.targets import check_groups, check_options, to_kind
from anynorm.surgery.converting.twins import check_state, to_anynorm, to_torch
from anynorm.surgery.distill import check_steps, output_error
from anynorm.surgery.distill import distill as distilled
from anynorm.surgery.folding.fold_norms import fold_norms
from anynorm.surgery.functional_calls import FunctionalCall
from anynorm.surgery.graph import capture
from anynorm.surgery.model import check_model
from anynorm.surgery.names import Layers
from anynorm.surgery.normalizers import Normalizer, families, named, normalizers
from anynorm.surgery.receipt import Log, Model, Result
from anynorm.surgery.recognized import candidates, find, observe_unknown
from anynorm.surgery.refitting.heal import heal as heal_layers
from anynorm.surgery.refused import Refused
from anynorm.surgery.replace import leave_fast_path
from anynorm.surgery.transaction import Trial, copied, perform
from anynorm.surgery.transfer_hooks import succeed
from anynorm.surgery.unmatched import Search
from anynorm.surgery.walk import put

__all__ = ["convert"]

_LIBRARIES = {"torch": to_torch, "anynorm": to_anynorm}
_EVERY = (*_LIBRARIES, "dyt")  # what is meant for normalizers of every family
_EQUAL = 1e-4  # rounding alone reaches 4e-5 in deep detection models


def convert(
    model: Model,
    to: str,
    example: Batch | None = None,
    *,
    source: str | Sequence[str] | None = None,
    layers: Layers | None = None,
    forward: Forward | None = None,
    inplace: bool = False,
    tolerance: float | None = None,
    heal: Iterable[Batch] | None = None,
    distill: int = 0,
    **options: Any,
) -> Result[Model]:
    """Convert normalizers of a model to other normalizers.

    γ, β, activations, hooks, modes and names stay.  Running statistics stay if the new layer uses
    the same ones in eval mode.  The receipt says what was lost, and why a layer was not converted.

    Args:
        model: the model.
        to: "torch" or "anynorm", for the same layers of torch.nn or anynorm: all normalizers are
            converted, with their statistics.  Or "dyt", for :class:`anynorm.DynamicTanh` in place
            of all normalizers.  Or the new kind of the batch family: "sync", "frozen", or a name of
            :data:`anynorm.catalogue`.
        example: an input, as a loader gives it.  It shows the number of axes of the inputs and
            which layers take a residual, which decides between torch's classes.  Without an
            example, layers for which this is unknown are refused or become general layers.
            With one, modules of other classes that :func:`anynorm.recognize` finds to normalize
            are converted too, except to "torch".
        source: other families to convert, by name.
        layers: the layers to convert, of these (see :mod:`anynorm.surgery.names`); None for all.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).
        inplace: whether to change the model itself instead of a copy.
        tolerance: the largest relative difference of the outputs on the example; above it
            everything is undone.  None means 1e-4 for "torch", "anynorm" and "frozen", and any
            difference otherwise.
        heal: inputs without labels, as a loader gives them, by which γ, β, α and the weights behind
            the new layers are fitted to the outputs of the model before the conversion: in one
            pass if all batches can wait for each other in memory, else in one for each layer.  To
            "none", batch norm is folded where it can be (see :func:`anynorm.fold`).  None to keep
            γ, β and all weights.
        distill: how many steps of gradient descent follow, on the same inputs and without labels,
            towards the outputs of the model before.  Every fifth batch is held out: the state with
            the smallest error on them is kept.
        options: the options of the kind (``groups=8``).

    Returns:
        The model and the receipt.

    Raises:
        UnknownNameError: There is no target, source or option of that name.
        AnynormError: Groups do not divide the channels (the message has the numbers that divide the
            channels of all layers), the model cannot be copied, or called on the example, or `heal`
            is given without an example, with less than two samples or with values that are not
            finite.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> group = convert(model, "group", groups=4).model[1]
        >>> group.num_groups, group.weight is not None
        (4, True)
    """
    check_model("convert", model)
    check_options(to, options)
    source = _checked(source)
    check_steps(distill)
    if (heal is not None and example is None) or (distill and heal is None):
        raise AnynormError(
            "healing fits the layers in the order in which they run: give an example, and inputs "
            "as heal=batches."
        )
    inputs = list(each(heal)) if heal is not None and once(heal) else heal
    if tolerance is None and to in (*_LIBRARIES, "frozen"):
        tolerance = _EQUAL

    def change(target: nn.Module, log: Log) -> nn.Module:
        log.search = _search(to, source)
        by_class = normalizers(target)
        unknown = candidates(target) if to != "torch" and example is not None else []
        modules = dict.fromkeys([*(norm.module for norm in by_class), *unknown])
        seen, calls = _seen(target, modules, example, forward)
        log.found = find(target, {module: seen[module] for module in unknown}, calls)
        found = [norm for norm in log.found.norms if _meant(norm, to, source)]
        found = named(found, layers, "normalize and are to be converted")
        check_groups([norm for norm in found if norm.known], to, options)
        if to == "none" and inputs is not None and example is not None:
            target, found = _without_exact(target, found, example, forward, log)
        before = copied(target) if inputs is not None else target
        for norm in found:
            target = _converted(target, norm, to, seen[norm.module], options, log)
        leave_fast_path(target)
        if inputs is not None:
            _heal(target, before, found, example, inputs, forward, distill, log)
        return target

    trial = None if example is None else Trial(example, forward, tolerance)
    return perform(f"convert to {to}", model, change, trial, inplace=inplace)


def _without_exact(
    model: nn.Module,
    found: Sequence[Normalizer],
    example: Batch,
    forward: Forward | None,
    log: Log,
) -> tuple[nn.Module, list[Normalizer]]:
    """Fold the layers whose statistics are constant in eval mode; return those that are left."""
    folding = Log()
    fixed = [norm for norm in found if norm.fixed]
    model = fold_norms(model, fixed, example, forward, folding)
    told = {note.layer: note.text for note in folding.changed}
    for norm in found:
        if norm.name in told:
            log.change(norm.name, f"{type(norm.module).__name__} to none, {told[norm.name]}")
    if told:
        log.facts["folded"] = f"{len(told)} of {len(found)} layers, exactly"
    return model, [norm for norm in found if norm.name not in told]


def _heal(
    model: nn.Module,
    before: nn.Module,
    found: Sequence[Normalizer],
    example: Batch,
    inputs: Iterable[Batch],
    forward: Forward | None,
    distill: int,
    log: Log,
) -> None:
    told = {note.layer for note in log.changed}
    replaced = {norm.name: norm for norm in found if norm.name in told}
    if not replaced:
        return
    apart = partial(output_error, model, before, inputs, forward)
    graph, first = capture(before, example, forward), apart()
    count = heal_layers(model, before, replaced, graph, inputs, forward)
    log.facts["healed"] = (
        f"{count} layers; the outputs' error went from {first:.2g} to {apart():.2g} of their "
        "variance"
    )
    if distill:
        log.facts["distilled"] = distilled(model, before, inputs, distill, forward)


def _checked(source: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if source is None:
        return None
    sources = (source,) if isinstance(source, str) else tuple(source)
    for name in sources:
        if name not in families():
            raise UnknownNameError("family of normalizers", name, families())
    return sources


def _meant(norm: Normalizer, to: str, sources: Sequence[str] | None) -> bool:
    """Whether to convert a layer: if in `sources`; by default all or those of the batch family."""
    if sources is not None:
        return norm.family in sources
    return to in _EVERY or norm.constant or norm.spec.uses_batch


def _search(to: str, sources: Sequence[str] | None) -> Search:
    def why(norm: Normalizer) -> str:
        if _meant(norm, to, sources):
            return f"{to} already"
        known = norm.family in families()
        return f"give source={norm.family!r} to convert" if known else "a pattern without a name"

    if sources is not None:
        return Search(f"layers of the families {listed(sources)}", why)
    kinds = "normalization layers" if to in _EVERY else "layers of the batch family"
    return Search(f"{kinds} that are not {to} yet", why)


def _seen(
    model: nn.Module, layers: Iterable[nn.Module], example: Batch | None, forward: Forward | None
) -> tuple[dict[nn.Module, Seen], dict[str, FunctionalCall]]:
    if example is None:
        return {layer: Seen() for layer in layers}, {}
    return observe_unknown(model, layers, example, forward)


def _converted(
    model: nn.Module, norm: Normalizer, to: str, seen: Seen, options: dict[str, Any], log: Log
) -> nn.Module:
    try:
        made = _made(norm, to, seen, options)
    except Refused as reason:
        log.refuse(norm.name, str(reason))
        return model
    if made is None:
        return model
    new, lost = made
    told = f"{type(norm.module).__name__} to {to} ({type(new).__name__}){_but(lost)}"
    if norm.recognition is not None:
        told += f", recognized by what it computes: '{norm.spec.pattern}'"
    log.change(norm.name, told)
    return put(model, norm.place, succeed(norm.module, new))


def _made(
    norm: Normalizer, to: str, seen: Seen, options: dict[str, Any]
) -> tuple[nn.Module, str] | None:
    if not norm.known:
        raise Refused(norm.doubt)
    if to in _LIBRARIES:
        new, lost = _LIBRARIES[to](norm, seen), ""
    else:
        new, lost = to_kind(norm, to, seen, options) or (None, "")
    if new is None:
        return None
    if norm.recognition is not None and to in _LIBRARIES:
        check_state(norm.module, new)
    return new, lost


def _but(lost: str) -> str:
    return f"; {lost}" if lost else ""
