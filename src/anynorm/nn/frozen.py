"""Batch norm with constant statistics, which stay frozen after `train()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anynorm import functional as F
from anynorm.errors import ShapeError
from anynorm.functional import Activation
from anynorm.nn.fx import entered
from anynorm.nn.scripting import Unscripted

__all__ = ["FrozenBatchNorm"]


class FrozenBatchNorm(Unscripted):
    """Batch norm of (N, C, *) with given statistics, the same in train and eval mode.

    The statistics are buffers that nothing updates; γ and β are buffers too, or parameters if
    `trainable`.  The names of the state are those of :class:`torch.nn.BatchNorm2d`, so its state
    dict can be loaded (the count of batches is dropped).  It is not a subclass of torch's batch
    norm, so code that resets or updates the statistics of those does not affect it.

    Args:
        num_features: the number of channels, C.
        eps: ε in σ = √(s² + ε).
        affine: whether there are γ and β.
        trainable: whether γ and β are parameters, if they exist.
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        device, dtype: the device and type of the state.

    Shape:
        - x: (N, C, *)
        - residual: the shape and type of `x`; it is added before φ
        - mask: (N, *), or that of `x` with 1 for any axis; bool, True for the values that count;
          all others (padding) become 0
        - output: that of `x`

    Raises:
        ShapeError: The input has a wrong number of channels, or the residual or the mask does not
            fit it.
        AnynormError: An argument has a wrong type or value.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> layer = FrozenBatchNorm(3)
        >>> layer.load_state_dict(torch.nn.BatchNorm2d(3).state_dict())
        <All keys matched successfully>
        >>> x = torch.randn(8, 3, 4, 4)
        >>> torch.equal(layer.train()(x), layer.eval()(x))
        True

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        affine: bool = True,
        trainable: bool = False,
        activation: Activation = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        F.check_arguments(type(self).__name__, {"num_features": num_features, "eps": eps})
        F.check_activation(activation)
        self.num_features, self.eps, self.affine = num_features, eps, affine
        self.trainable, self.activation = trainable and affine, activation
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        zeros, ones = torch.zeros(num_features, **factory), torch.ones(num_features, **factory)
        for name, value in (("weight", ones), ("bias", zeros)):
            self._add_affine(name, value.clone() if affine else None)
        self.register_buffer("running_mean", zeros)
        self.register_buffer("running_var", ones)

    def _add_affine(self, name: str, value: Tensor | None) -> None:
        if value is not None and self.trainable:
            self.register_parameter(name, torch.nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def forward(
        self, x: Tensor, residual: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Normalize `x` (N, C, *); add `residual` before φ; 0 where `mask` is False."""
        if type(x) is not Tensor or residual is not None or mask is not None:
            recorded: Tensor | None = entered(self, x, residual, mask)
            if recorded is not None:
                return recorded
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise ShapeError(
                f"FrozenBatchNorm({self.num_features}) takes (N, C, *) with C = "
                f"{self.num_features}, got shape {tuple(x.shape)}. Move the channels to axis 1."
            )
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            eps=self.eps,
            activation=self.activation,
            residual=residual,
            mask=mask,
        )

    if TYPE_CHECKING:
        __call__ = forward

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        state.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state, prefix, *rest)

    def extra_repr(self) -> str:
        """Return the channels, and the arguments that differ from the defaults."""
        phi = F.activation_name(self.activation)
        shown = [str(self.num_features), f"eps={self.eps}"]
        shown += ["affine=False"] if not self.affine else []
        shown += ["trainable=True"] if self.trainable else []
        return ", ".join(shown + ([f"activation={phi}"] if phi else []))
