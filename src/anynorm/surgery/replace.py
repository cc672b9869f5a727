"""Replace a model's normalization layers, keeping hooks, modes, devices and ties."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from anynorm import nn as own
from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.model import check_model
from anynorm.surgery.normalizers import Normalizer, normalizers
from anynorm.surgery.recognized import find_on
from anynorm.surgery.transfer_hooks import succeed
from anynorm.surgery.walk import put

__all__ = ["Rows", "leave_fast_path", "replace_norms"]


def replace_norms(
    model: nn.Module,
    make: Callable[[int], nn.Module],
    example: Batch | None = None,
    *,
    forward: Forward | None = None,
) -> tuple[nn.Module, int]:
    """Put a module of your own in place of each normalization layer.

    Layers are known by their exact type; with an example, also by what they compute
    (:func:`anynorm.recognize`).  Any other subclass of a layer is an error, because it may do more
    than normalize (such as an activation), which would be lost silently.  Hooks, modes, devices and
    ties stay.

    Args:
        model: the model, which is changed itself.
        make: a function from the number of channels to the new module.
        example: an input, as a loader gives it.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).

    Returns:
        The model, and the number of layers that were replaced.

    Raises:
        AnynormError: A layer may do more than normalize.

    Example:
        >>> model, count = replace_norms(nn.Sequential(nn.BatchNorm1d(3)), lambda c: nn.Identity())
        >>> count, model
        (1, Sequential(
          (0): Identity()
        ))
    """
    check_model("replace_norms", model)
    found = normalizers(model) if example is None else find_on(model, example, forward).norms
    for norm in found:
        _check_known(norm)
    for norm in found:
        model = put(model, norm.place, succeed(norm.module, _made(norm, make)))
    leave_fast_path(model)
    return model, len(found)


def _check_known(norm: Normalizer) -> None:
    if not norm.known:
        raise AnynormError(
            f"the layer {norm.name!r} cannot be replaced: {norm.doubt}. "
            "Use the plain layer, or give the factory a norm= argument."
        )


def _made(norm: Normalizer, make: Callable[[int], nn.Module]) -> nn.Module:
    new = make(norm.channels)
    if norm.takes_last_axis:
        new = Rows(new)
    if norm.activation is not None:
        new = nn.Sequential(new, own.Activate(norm.activation))
    like = next(norm.layer.parameters(), None)
    return new if like is None else new.to(like)


class Rows(nn.Module):
    """Apply a module for inputs (N, C) to the last axis of (..., C), as torch's LayerNorm does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Shapes: (..., C) gives (..., C); a residual is passed to the module."""
        given = (x,) if residual is None else (x, residual)
        rows: Tensor = self.inner(*(one.reshape(-1, x.shape[-1]) for one in given))
        return rows.reshape(x.shape)


def leave_fast_path(model: nn.Module) -> None:
    """Turn off torch's fast path, which reads the weights of LayerNorms in transformer layers."""
    for layer in model.modules():
        if not isinstance(layer, nn.TransformerEncoderLayer):
            continue
        if not all(isinstance(norm, nn.LayerNorm) for norm in (layer.norm1, layer.norm2)):
            layer.activation_relu_or_gelu = 0  # torch's own sign that the fast path does not apply
