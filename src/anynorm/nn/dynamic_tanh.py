"""`DynamicTanh`: a layer without statistics in place of a normalizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anynorm import functional as F
from anynorm.errors import ShapeError
from anynorm.functional import Activation
from anynorm.nn.fx import entered
from anynorm.nn.scripting import Unscripted
from anynorm.spec import Spec

__all__ = ["DynamicTanh"]

_LAST, _FIRST = (Spec.of(pattern, center=False, scale=None) for pattern in ("... c", "n c ..."))


class DynamicTanh(Unscripted):
    """Dynamic tanh (DyT), h = φ(γ · tanh(α · x) + β + residual), with one α for the layer.

    It takes no statistics.  It is no row of the catalogue, because its tanh stands before γ.  The
    names and shapes of the state are those of the authors' code.

    Args:
        normalized_shape: the shape of γ and β: the sizes of the last axes, or the number of
            channels if `channels_first`.
        alpha_init: where α starts.
        elementwise_affine: whether there are γ and β.
        bias: whether there is β, if there is γ.
        channels_first: whether the channels are axis 1, as in images (N, C, H, W), in any memory
            format.
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        device, dtype: the device and type of the state.

    Shape:
        - x: (*, normalized_shape), or (N, C, *) if `channels_first`
        - residual: the shape and type of `x`; it is added before φ
        - output: that of `x`

    Raises:
        ShapeError: The input does not fit γ, or the residual does not fit the input.
        AnynormError: An argument has a wrong type or value.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> layer = DynamicTanh(10)
        >>> layer(torch.randn(2, 7, 10)).shape
        torch.Size([2, 7, 10])
        >>> [(name, tuple(value.shape)) for name, value in layer.state_dict().items()]
        [('alpha', (1,)), ('weight', (10,)), ('bias', (10,))]

    Reference:
        Zhu et al. 2025, arXiv:2503.10622.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        alpha_init: float = 0.5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        channels_first: bool = False,
        activation: Activation = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        given = {"normalized_shape": normalized_shape, "alpha_init": alpha_init}
        F.check_arguments(type(self).__name__, given)
        F.check_activation(activation)
        if isinstance(normalized_shape, int):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        self.alpha_init, self.channels_first = alpha_init, channels_first
        self.activation = activation
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.alpha = torch.nn.Parameter(torch.empty(1, **factory))
        for name, there in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            parameter = torch.nn.Parameter(torch.empty(self.normalized_shape, **factory))
            self.register_parameter(name, parameter if there else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set α to `alpha_init`, γ to 1 and β to 0."""
        torch.nn.init.constant_(self.alpha, self.alpha_init)
        if self.weight is not None:
            torch.nn.init.ones_(self.weight)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return γ · tanh(α · x) + β; add `residual` before φ."""
        if type(x) is not Tensor or residual is not None:
            recorded: Tensor | None = entered(self, x, residual)
            if recorded is not None:
                return recorded
        shape, axes = self.normalized_shape, len(self.normalized_shape)
        if x.shape[1 : 1 + axes] != shape if self.channels_first else x.shape[-axes:] != shape:
            where = "from axis 1 on" if self.channels_first else "as its last axes"
            raise ShapeError(
                f"DynamicTanh with γ of shape {shape} takes an input with {shape} {where}, got "
                f"shape {tuple(x.shape)}. Move the channels there, or set channels_first="
                f"{not self.channels_first}."
            )
        spec = _FIRST if self.channels_first else _LAST
        bent = torch.tanh(self.alpha * x)
        return F.normalize(
            *(bent, spec, self.weight, self.bias), activation=self.activation, residual=residual
        )

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        """Return the shape, and the arguments that differ from the defaults."""
        axes = self.normalized_shape
        shown = [str(axes[0] if len(axes) == 1 else axes), f"alpha_init={self.alpha_init}"]
        shown += ["elementwise_affine=False"] if self.weight is None else []
        shown += ["bias=False"] if self.weight is not None and self.bias is None else []
        shown += ["channels_first=True"] if self.channels_first else []
        phi = F.activation_name(self.activation)
        return ", ".join(shown + ([f"activation={phi}"] if phi else []))
