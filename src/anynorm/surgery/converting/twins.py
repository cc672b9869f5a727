"""Make the same normalizer as a layer of torch.nn or of anynorm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from anynorm import nn as own
from anynorm.activations import ACTIVATIONS
from anynorm.catalogue import entry
from anynorm.errors import ShapeError
from anynorm.ops.formula import SIXTEEN_BITS
from anynorm.spec import Spec
from anynorm.surgery.call_info import Seen
from anynorm.surgery.freeze import frozen
from anynorm.surgery.normalizers import NORMALIZERS, Normalizer
from anynorm.surgery.recognize import Recognition
from anynorm.surgery.refused import Refused

__all__ = ["Added", "check_state", "to_anynorm", "to_torch"]

_BATCH = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "batch": _BATCH,
    "instance": _BATCH,
    "group": ("num_groups", "num_channels", "eps", "affine"),
    "layer": ("normalized_shape", "eps", "elementwise_affine"),
    "rms": ("normalized_shape", "eps", "elementwise_affine"),
}
_STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_SYNCED = (
    "SyncBatchNorm is a layer of torch.nn already. For a model on one process, first "
    'convert(model, "batch", example), then convert(..., "torch", example): it gives BatchNorm2d'
)


class Added(nn.Module):
    """A normalizer without residual, followed by adding a residual and an activation.

    >>> Added(nn.BatchNorm1d(3), nn.ReLU())(torch.zeros(2, 3), torch.ones(2, 3)).sum()
    tensor(6., grad_fn=<SumBackward0>)
    """

    def __init__(self, norm: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.norm, self.act = norm, act

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return φ(norm(x) + residual), of the shape of `x`."""
        y = self.norm(x)
        z: Tensor = self.act(y if residual is None else y + residual)
        return z


def to_anynorm(norm: Normalizer, seen: Seen) -> nn.Module | None:
    """Our layer with the same function as `norm`; None if `norm` is already ours."""
    if norm.recognition is not None:
        return _recognized(norm.layer, norm.recognition, seen)
    if type(norm.module).__module__.startswith("anynorm."):
        return None
    if norm.constant:
        if norm.module.running_mean.dtype in SIXTEEN_BITS:
            raise Refused("in 16 bits it rounds after each step, and anynorm rounds once")
        return frozen(norm)
    return _rebuilt(norm, getattr(own, norm.base.__name__), activation=norm.activation)


def _recognized(layer: nn.Module, found: Recognition, seen: Seen) -> nn.Module:
    assert seen.first is not None
    if not found.exact and seen.first.dtype in SIXTEEN_BITS:
        raise Refused(f"anynorm rounds otherwise: {found.evidence[-1]}")
    return layer


def check_state(old: nn.Module, new: nn.Module) -> None:
    """Raise `Refused` if the state dict would have other names or shapes.

    Methods such as `from_pretrained` of the model's class load by these names.
    """
    shapes = [{k: tuple(v.shape) for k, v in one.state_dict().items()} for one in (old, new)]
    if shapes[0] != shapes[1]:
        raise Refused(f"the state dict would have {shapes[1]} in place of {shapes[0]}")


def to_torch(norm: Normalizer, seen: Seen) -> nn.Module | None:
    """The layer of torch.nn with the same function as `norm`, followed by its activation.

    None where it is one; raises `Refused` where torch has none.
    """
    if type(norm.layer) in NORMALIZERS and type(norm.layer).__module__.startswith("torch."):
        if isinstance(norm.layer, nn.SyncBatchNorm):
            raise Refused(_SYNCED)
        return None
    if seen.mask:
        raise Refused("it is called with a mask, which torch's layers do not take")
    plain = _of_pattern(norm, seen) if type(norm.layer) is own.Norm else _of_twin(norm)
    phi = _module(norm.activation)
    if seen.residual:
        return Added(plain, phi or nn.Identity())
    return plain if phi is None else nn.Sequential(plain, phi)


def _of_twin(norm: Normalizer) -> nn.Module:
    if norm.constant:
        raise Refused("torch.nn has no batch norm of constants")
    if (sync := getattr(norm.layer, "sync", None)) is not None:
        return _rebuilt(norm, nn.SyncBatchNorm, process_group=_process_group(sync))
    return _rebuilt(norm, getattr(nn, norm.base.__name__))


def _process_group(sync: Any) -> Any:
    """The process group for torch's synchronised batch norm."""
    if isinstance(sync, int) and sync is not True:
        raise Refused("torch's SyncBatchNorm takes a process group, not a number of ranks")
    if sync is True:
        return None
    return sync.get_group() if hasattr(sync, "get_group") else sync


def _rebuilt(norm: Normalizer, kind: Callable[..., nn.Module], **more: Any) -> nn.Module:
    module = norm.layer
    options = {name: getattr(module, name) for name in _OPTIONS[norm.family]}
    if isinstance(module, nn.SyncBatchNorm):
        more["process_group"] = module.process_group
    return _given_state(kind(**options, **more, device="meta"), norm)


def _given_state(new: nn.Module, norm: Normalizer) -> nn.Module:
    """Transfer the parameters and buffers themselves."""
    for name in _STATE:
        if name in {**new._parameters, **new._buffers}:
            setattr(new, name, getattr(norm.layer, name, None))
    return new


def _of_pattern(norm: Normalizer, seen: Seen) -> nn.Module:
    module: Any = norm.layer
    rows = ((_row(*row), make) for row, make in _PATTERNS.items())
    make = next((make for spec, make in rows if _alike(module.spec, spec, seen.rank)), None)
    if make is None or len(module.channels) != 1:
        pattern = str(module.spec.pattern)
        raise Refused(f"torch.nn has no layer {pattern!r} with such statistics, γ and rounding")
    return _given_state(make(module, seen), norm)


def _row(name: str, pattern: str) -> Spec:
    """The specification of the catalogue's entry with this pattern."""
    row = entry(name)
    first = row.channels_first
    return first if first is not None and str(first.pattern) == pattern else row.spec


def _alike(one: Spec, other: Spec, rank: int | None) -> bool:
    """Whether both normalize in the same way, for inputs with `rank` axes if that is known."""
    same = one.normalizes_as(other)
    if same or rank is None:
        return same
    try:
        plans = [spec.pattern.plan(rank) for spec in (one, other)]
    except ShapeError:
        return False
    places = [(plan.dims, plan.first, tuple(map(len, plan.axes))) for plan in plans]
    return places[0] == places[1] and replace(one, pattern=other.pattern).normalizes_as(other)


def _ranked(name: str, module: Any, seen: Seen, **options: Any) -> nn.Module:
    fitting = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}.get(seen.rank or 0)
    if fitting is None:
        raise Refused("which of torch's layers fits depends on the input's axes: give an example")
    kind = getattr(nn, name + fitting)
    layer: nn.Module = kind(
        *module.channels, module.eps, module.momentum, module.affine, **options, device="meta"
    )
    return layer


def _batch(module: Any, seen: Seen) -> nn.Module:
    if module.sync is not None:
        options: dict[str, Any] = {name: getattr(module, name) for name in _BATCH[1:]}
        options["process_group"] = _process_group(module.sync)
        options["num_features"], options["device"] = module.channels[0], "meta"
        return nn.SyncBatchNorm(**options)
    return _ranked("BatchNorm", module, seen, track_running_stats=module.track_running_stats)


def _instance(module: Any, seen: Seen) -> nn.Module:
    return _ranked("InstanceNorm", module, seen)


def _group(module: Any, _: Seen) -> nn.Module:
    (channels,) = module.channels
    groups = module.sizes.get("g", channels // module.sizes.get("c", channels))
    return nn.GroupNorm(groups, channels, module.eps, module.affine, device="meta")


def _all_channels(module: Any, _: Seen) -> nn.Module:
    (channels,) = module.channels
    return nn.GroupNorm(1, channels, module.eps, module.affine, device="meta")


def _layer(module: Any, _: Seen) -> nn.Module:
    return nn.LayerNorm(module.channels, module.eps, module.affine, device="meta")


def _rms(module: Any, _: Seen) -> nn.Module:
    if module.bias is not None:
        raise Refused("torch's RMS norm has no β")
    return nn.RMSNorm(module.channels, module.eps, module.affine, device="meta")


def _none(_: Any, __: Seen) -> nn.Module:
    return nn.Identity()


_PATTERNS: dict[tuple[str, str], Callable[[Any, Seen], nn.Module]] = {
    ("none", "n c ..."): _none,
    ("batch", "[n] c [...]"): _batch,
    ("instance", "n c [...]"): _instance,
    ("group", "n (g [c]) [...]"): _group,
    ("layer", "n [c ...]"): _all_channels,
    ("layer", "... [c]"): _layer,
    ("rms", "... [c]"): _rms,
}


def _module(phi: Any) -> nn.Module | None:
    """φ as a module; a named activation becomes torch's module."""
    if isinstance(phi, str):
        return ACTIVATIONS[phi].module()
    return phi if phi is None or isinstance(phi, nn.Module) else own.Activate(phi)
