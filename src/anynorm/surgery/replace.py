"""Replace a model's normalization layers, keeping hooks, modes, devices and ties."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from anynorm import nn as own
from anynorm.errors import AnynormError
from anynorm.surgery.walk import Place, put, walk

__all__ = ["NORMALIZERS", "channels_of", "replace_norms"]

_TWINS = (
    *(f"BatchNorm{rank}d" for rank in (1, 2, 3)),
    *(f"InstanceNorm{rank}d" for rank in (1, 2, 3)),
    *("GroupNorm", "LayerNorm", "RMSNorm"),
)
NORMALIZERS: tuple[type[nn.Module], ...] = (
    *(getattr(library, name) for library in (nn, own) for name in _TWINS),
    nn.SyncBatchNorm,
    own.Norm,
)

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def replace_norms(model: nn.Module, make: Callable[[int], nn.Module]) -> tuple[nn.Module, int]:
    """Put ``make(channels)`` in place of each normalization layer; returns the model and a count.

    Layers are recognised by their exact type: a subclass may do more than normalize (an
    activation, say), so it raises `AnynormError` rather than lose that without a word.

    >>> model, count = replace_norms(nn.Sequential(nn.BatchNorm1d(3)), lambda c: nn.Identity())
    >>> count, model
    (1, Sequential(
      (0): Identity()
    ))
    """
    places = [place for place in walk(model) if isinstance(place.module, NORMALIZERS)]
    for place in places:
        _check_exact(place)
    for place in places:
        model = put(model, place, _successor(place.module, make))
    for layer in model.modules():
        _leave_fast_path(layer)
    return model, len(places)


def channels_of(module: nn.Module) -> int:
    """The number of channels that a normalization layer was made for."""
    for name in ("num_features", "num_channels"):
        if hasattr(module, name):
            return int(getattr(module, name))
    shape = module.channels if isinstance(module, own.Norm) else module.normalized_shape
    return int(shape[0])  # type: ignore[index]


class Rows(nn.Module):
    """Apply a module for inputs (N, C) to the last axis of (..., C), as torch's LayerNorm does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (..., C) gives (..., C)."""
        rows: Tensor = self.inner(x.reshape(-1, x.shape[-1]))
        return rows.reshape(x.shape)


def _successor(old: nn.Module, make: Callable[[int], nn.Module]) -> nn.Module:
    new = make(channels_of(old))
    if _takes_last_axis(old):
        new = Rows(new)
    if (activation := getattr(old, "activation", None)) is not None:
        new = nn.Sequential(new, own.Activate(activation))
    if (like := next(old.parameters(), None)) is not None:
        new = new.to(like)
    for name in _HOOKS:
        getattr(new, name).update(getattr(old, name))
    return new.train(old.training)


def _leave_fast_path(layer: nn.Module) -> None:
    """In eval mode torch's transformer layers read the weights of their LayerNorms themselves."""
    if isinstance(layer, nn.TransformerEncoderLayer) and not isinstance(layer.norm1, nn.LayerNorm):
        layer.activation_relu_or_gelu = 0  # torch's own sign that the fast path does not apply


def _takes_last_axis(module: nn.Module) -> bool:
    if isinstance(module, own.Norm):
        return str(module.spec.pattern).startswith("...")
    return len(getattr(module, "normalized_shape", ())) == 1


def _check_exact(place: Place) -> None:
    if type(place.module) not in NORMALIZERS:
        kind = type(place.module)
        raise AnynormError(
            f"the layer {place.names[0]!r} is a {kind.__name__}, a subclass of "
            f"{kind.__mro__[1].__name__} that may do more than normalize; it is not replaced. "
            "Use the plain layer, or give the factory a norm= argument."
        )
