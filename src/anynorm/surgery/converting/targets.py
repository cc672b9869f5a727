"""Make a layer of another kind, by its name, and keep the state that fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from anynorm import nn as own
from anynorm.catalogue import catalogue, entry
from anynorm.errors import AnynormError, UnknownNameError
from anynorm.nn import create
from anynorm.surgery.affine import eps_of
from anynorm.surgery.call_info import Seen
from anynorm.surgery.freeze import frozen
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refused import Refused
from anynorm.surgery.replace import Rows

__all__ = ["TARGETS", "check_groups", "check_options", "to_kind"]

_LAYERS = tuple(row.name for row in catalogue.values() if row.spec.on == "input")
TARGETS = ("sync", "frozen", "dyt", *_LAYERS)

_PER_AXES = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}


def to_kind(
    norm: Normalizer, to: str, seen: Seen, options: dict[str, Any]
) -> tuple[nn.Module, str] | None:
    """Return a layer of the kind `to` for `norm`, and the state that it cannot keep, in words.

    None where `norm` is such a layer; raises `Refused` where it cannot be one.
    """
    if _kind(norm) == to and not options:
        return None
    _check_axes(norm, to, seen)
    if to == "frozen":
        return _frozen(norm, options), ""
    new = _MAKERS.get(to, _created)(norm, to, seen, _common(norm, to, options))
    lost = _carry(norm, new, to)
    return (_on_rows(norm, new, to), lost)


def _kind(norm: Normalizer) -> str:
    if isinstance(norm.layer, nn.SyncBatchNorm):
        return "torch's"
    return norm.family if getattr(norm.layer, "sync", None) is None else "sync"


def _check_axes(norm: Normalizer, to: str, seen: Seen) -> None:
    module = norm.layer
    shape: Any = getattr(module, "normalized_shape", None) or getattr(module, "channels", ())
    if len(shape) > 1:
        raise Refused(f"it normalizes over several axes, {tuple(shape)}")
    if to in catalogue and not entry(to).spec.pattern.plan(4).names_channels:
        raise Refused("its γ and statistics have the shape of a sample, not one for each channel")
    single = norm.takes_last_axis or seen.rank == 2
    if single and to in catalogue and entry(to).spec.pattern.shared == {"..."}:
        raise Refused(f"its input has one value for each channel and sample, and {to} needs more")


def _frozen(norm: Normalizer, options: dict[str, Any]) -> nn.Module:
    if not norm.fixed or not norm.spec.uses_batch:
        raise Refused("it keeps no statistics of batches to freeze")
    return frozen(norm, **options)


def _common(norm: Normalizer, to: str, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the new layer: those of the old one, overridden by the user's options."""
    gain, _ = norm.affine
    like = next((t for t in norm.layer.state_dict().values() if t.is_floating_point()), None)
    taken: dict[str, Any] = {"affine": gain is not None, "activation": norm.activation}
    if like is not None:
        taken.update(device=like.device, dtype=like.dtype)
    if _keeps(norm, to):
        taken["eps"] = eps_of(norm)
    if _shares_batch(to):
        taken["momentum"] = getattr(norm.layer, "momentum", 0.1)
    return {**taken, **options}


def _sync(norm: Normalizer, _: str, __: Seen, options: dict[str, Any]) -> nn.Module:
    options.setdefault("process_group", getattr(norm.layer, "process_group", None))
    layer = own.SyncBatchNorm(norm.channels, **options)
    layer.layer_name = norm.name
    return layer


def _batch(norm: Normalizer, to: str, seen: Seen, options: dict[str, Any]) -> nn.Module:
    return _of_rank("BatchNorm", norm, to, seen, options)


def _instance(norm: Normalizer, to: str, seen: Seen, options: dict[str, Any]) -> nn.Module:
    return _of_rank("InstanceNorm", norm, to, seen, options)


def _group(norm: Normalizer, _: str, __: Seen, options: dict[str, Any]) -> nn.Module:
    groups = options.pop("groups", getattr(norm.layer, "num_groups", _groups("group")))
    return own.GroupNorm(groups, norm.channels, **options)


def _dyt(norm: Normalizer, _: str, seen: Seen, options: dict[str, Any]) -> nn.Module:
    if seen.mask:
        raise Refused("it is called with a mask, which DynamicTanh does not take")
    affine, bias = options.pop("affine"), norm.affine[1] is not None
    options |= {"channels_first": not norm.takes_last_axis, "bias": bias}
    return own.DynamicTanh(norm.channels, elementwise_affine=affine, **options)


def _of_rank(
    name: str, norm: Normalizer, to: str, seen: Seen, options: dict[str, Any]
) -> nn.Module:
    """The class for the input's number of axes if that is known, otherwise one for any number."""
    rank = _PER_AXES.get(2 if norm.takes_last_axis else seen.rank or 0) or _rank_of(norm.layer)
    if not rank:
        return _created(norm, to, seen, options)
    layer: nn.Module = getattr(own, name + rank)(norm.channels, **options)
    return layer


def _rank_of(module: nn.Module) -> str:
    """The suffix 1d, 2d or 3d of the class of `module`."""
    names = (kind.__name__ for kind in type(module).__mro__)
    return next((name[-2:] for name in names if name.endswith(("1d", "2d", "3d"))), "")


def _created(norm: Normalizer, to: str, _: Seen, options: dict[str, Any]) -> nn.Module:
    bias = norm.affine[1] is not None
    return create(to, norm.channels, channels_first=not norm.takes_last_axis, bias=bias, **options)


_MAKERS: dict[str, Callable[[Normalizer, str, Seen, dict[str, Any]], nn.Module]] = {
    "sync": _sync,
    "batch": _batch,
    "instance": _instance,
    "group": _group,
    "dyt": _dyt,
}


def _on_rows(norm: Normalizer, new: nn.Module, to: str) -> nn.Module:
    takes_last_axis = to == "dyt" or (to in catalogue and entry(to).channels_first is not None)
    return Rows(new) if norm.takes_last_axis and not takes_last_axis else new


def _carry(norm: Normalizer, new: Any, to: str) -> str:
    """Transfer γ, β and the statistics that fit; return in words what does not."""
    told = [] if _carry_affine(norm, new) else ["γ and β have no place"]
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        kept = getattr(norm.layer, name, None)
        if kept is not None and _keeps(norm, to):
            setattr(new, name, kept.detach().clone())
    if getattr(new, "running_mean", None) is not None and not _keeps(norm, to):
        told.append("its statistics start anew: recalibrate it")
    return ", ".join(told)


def _shares_batch(to: str) -> bool:
    """Whether the new layer has statistics over samples, and so a momentum."""
    return to == "sync" or (to in catalogue and entry(to).spec.uses_batch)


def _keeps(norm: Normalizer, to: str) -> bool:
    """Whether the new layer uses the running statistics of `norm` in eval mode."""
    return norm.fixed and (to == "sync" or (to in catalogue and entry(to).spec.keeps_moments))


def _carry_affine(norm: Normalizer, new: Any) -> bool:
    fits = True
    for name, value in zip(("weight", "bias"), norm.affine, strict=True):
        if value is None:
            if getattr(new, name, None) is not None:
                setattr(new, name, None)
        elif getattr(getattr(new, name, None), "shape", None) == value.shape:
            offset = _offset(new) if name == "weight" else 0.0
            setattr(new, name, _parameter(value - offset if offset else value, getattr(new, name)))
        else:
            fits = False
    return fits


def _offset(new: nn.Module) -> float:
    """The constant that the new layer adds to its parameter for γ."""
    return new.spec.learned.offset if isinstance(new, own.Norm) else 0.0


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    """The parameter itself; a buffer of a frozen layer becomes a new parameter."""
    if isinstance(value, nn.Parameter):
        return value
    return nn.Parameter(value.detach().to(like, copy=True))


def _groups(to: str) -> int:
    return entry(to).sizes["groups"][1]


def check_groups(found: Sequence[Normalizer], to: str, options: dict[str, Any]) -> None:
    """Raise `AnynormError`, with the counts that are possible, if groups do not divide channels."""
    if to not in catalogue or "groups" not in entry(to).sizes:
        return
    if "groups" not in options:  # a group norm has its own
        found = [norm for norm in found if _kind(norm) != to]
    groups = options.get("groups", _groups(to))
    if not isinstance(groups, int) or groups < 1:
        entry(to).tune(groups=groups)  # which raises
    odd = [norm for norm in found if norm.channels % groups]
    if odd:
        common = math.gcd(*(norm.channels for norm in found))
        possible = [count for count in range(1, common + 1) if common % count == 0]
        listed = ", ".join(f"{norm.name!r} ({norm.channels})" for norm in odd[:5])
        raise AnynormError(
            f"{groups} groups do not divide the channels of {len(odd)} layers: {listed}"
            f"{', ...' if len(odd) > 5 else ''}. Possible for all {len(found)} layers: "
            f"groups={', '.join(map(str, possible))}."
        )


def check_options(to: str, options: dict[str, Any]) -> None:
    """Raise `UnknownNameError` for an unknown target, or an option that it does not take."""
    known = _options(to)
    for name in options:
        if name not in known:
            raise UnknownNameError(f"option of {to!r}", name, known)


def _options(to: str) -> tuple[str, ...]:
    if to in ("torch", "anynorm"):
        return ()
    if to == "frozen":
        return ("affine",)
    if to == "dyt":
        return ("alpha_init",)
    if to not in TARGETS:
        raise UnknownNameError("target", to, ("torch", "anynorm", *TARGETS))
    own_options = entry(to).options if to in catalogue else ()
    if to == "sync":
        return ("eps", "momentum", "process_group")
    return ("eps", *(("momentum",) if _shares_batch(to) else ()), *own_options)
