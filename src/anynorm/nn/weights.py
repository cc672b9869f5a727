"""Weight normalizers, and `normalized`: a layer together with any normalizer."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from anynorm import functional as F
from anynorm.catalogue import Entry, entry
from anynorm.errors import AnynormError
from anynorm.functional import Activation
from anynorm.nn.arguments import check_built_with
from anynorm.nn.norm import create
from anynorm.nn.scripting import Unscripted
from anynorm.spec import Spec

__all__ = [
    "Activate",
    "CosineConv1d",
    "CosineConv2d",
    "CosineConv3d",
    "CosineLinear",
    "NormalizedWeight",
    "normalized",
]


class NormalizedWeight(Unscripted):
    """The weight γ · (w − μ) / σ of each output unit, as a parametrization of `weight`.

    Register it with :func:`torch.nn.utils.parametrize.register_parametrization`, or use
    :func:`normalized`.  γ, one for each unit, starts at σ of the present weight.  So weight norm
    does not change the weight at first, and weight standardization only subtracts the mean.

    Args:
        spec: the specification of a weight normalizer.
        weight: the present weight.
        eps: ε in σ = √(s² + ε).

    Shape:
        - weight: (O, I, *)
        - output: (O, I, *)

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> norm = NormalizedWeight(entry("weight").spec, layer.weight, eps=0.0)
        >>> torch.allclose(norm(layer.weight), layer.weight)
        True

    Reference:
        Salimans & Kingma 2016, arXiv:1602.07868; Qiao et al. 2019, arXiv:1903.10520.
    """

    def __init__(self, spec: Spec, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.spec, self.eps = spec, eps
        self.weight = torch.nn.Parameter(self._measure(weight.detach()))

    def forward(self, weight: Tensor) -> Tensor:
        """Normalize `weight` (O, I, *)."""
        return F.normalize_weight(weight, self.spec, self.weight, self.eps)

    if TYPE_CHECKING:
        __call__ = forward

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Accept a new weight: γ is set to its σ."""
        with torch.no_grad():
            self.weight.copy_(self._measure(weight.detach()))
        return weight

    def _measure(self, weight: Tensor) -> Tensor:
        return F.scale_of(weight, self.spec, self.eps).reshape(-1)


class _Cosine(Unscripted):
    """A layer that computes γ · cos(w, x) + β, for the receptive field x of each output.

    γ, one for each unit, starts at ‖w‖ times the root of the number of inputs: so for inputs with
    root mean square 1 the output is about that without normalization.
    """

    weight: Tensor
    groups: int = 1
    eps = entry("cosine").eps

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_built_with(type(self), args, kwargs)
        super().__init__(*args, **kwargs)
        self.adopt()

    def adopt(self) -> None:
        """Create γ for the present weight."""
        self.gain = torch.nn.Parameter(self.weight.detach().flatten(1)[:, 0].clone())
        self.reset_gain()

    def reset_parameters(self) -> None:
        """Draw a new weight, as the layer without normalization does, and set γ by it."""
        super().reset_parameters()  # type: ignore[misc]
        if "gain" in self._parameters:
            self.reset_gain()

    @torch.no_grad()
    def reset_gain(self) -> None:
        """Set γ by the present weight."""
        inputs = math.prod(self.weight.shape[1:])
        self.gain.copy_(self.weight.flatten(1).norm(dim=1) * math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return γ · cos(w, x) + β, with the output shape of the layer without normalization."""
        try:
            unit = F.normalize(self.weight, entry("weight").spec, self.gain, eps=self.eps)
            return self._shift(self._apply_layer(x, unit) / self._length(x))
        except (RuntimeError, TypeError):
            F.explain(type(self).__name__, input=x, weight=self.weight)
            raise

    if TYPE_CHECKING:
        __call__ = forward

    def _length(self, x: Tensor) -> Tensor:
        """The norm of each receptive field, one for each group: the layer sums x² itself."""
        squares = self._apply_layer(x * x, torch.ones_like(self.weight[: self.groups]))
        # Use an ε that does not vanish in 16 bits: float16 rounds values below 3e-8 to 0.
        return torch.sqrt(squares + max(self.eps, torch.finfo(squares.dtype).tiny))

    def _apply_layer(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def _shift(self, y: Tensor) -> Tensor:
        raise NotImplementedError


class CosineLinear(_Cosine, torch.nn.Linear):
    """A linear layer that computes γ · cos(w, x) + β.

    γ, one for each unit, is the parameter `gain`.  It starts at ‖w‖ times the root of the number of
    inputs: so for inputs with root mean square 1 the output is about that without normalization.

    Args:
        All arguments: as for :class:`torch.nn.Linear`.

    Shape:
        - x: (*, in_features)
        - output: (*, out_features)

    Raises:
        AnynormError: An argument has a wrong type or value.

    Example:
        >>> layer = CosineLinear(4, 3)
        >>> x = torch.randn(2, 4)
        >>> torch.allclose(layer(5 * x), layer(x), atol=1e-5)
        True

    Reference:
        Luo et al. 2017, arXiv:1702.05870.
    """

    def _apply_layer(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, weight)

    def _shift(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias


class _CosineConv(_Cosine):
    """The common base of the convolutions."""

    out_channels: int
    bias: Tensor | None

    def _apply_layer(self, x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(x, weight, None)  # type: ignore[operator]
        return y

    def _length(self, x: Tensor) -> Tensor:
        """For each output, the norm of its group's receptive field."""
        axis = 1 - self.weight.dim()
        return super()._length(x).repeat_interleave(self.out_channels // self.groups, axis)

    def _shift(self, y: Tensor) -> Tensor:
        if self.bias is None:
            return y
        return y + self.bias.reshape(-1, *[1] * (self.weight.dim() - 2))


class CosineConv1d(_CosineConv, torch.nn.Conv1d):
    """A convolution that computes γ · cos(w, patch) + β.

    A patch is the receptive field of one output.  γ is as for :class:`CosineLinear`.

    Args:
        All arguments: as for :class:`torch.nn.Conv1d`.

    Shape:
        - x: (N, C, L) or (C, L)
        - output: that of :class:`torch.nn.Conv1d`

    Raises:
        AnynormError: An argument has a wrong type or value.

    Example:
        >>> CosineConv1d(4, 3, 5, padding=2)(torch.randn(2, 4, 16)).shape
        torch.Size([2, 3, 16])

    Reference:
        Luo et al. 2017, arXiv:1702.05870.
    """


class CosineConv2d(_CosineConv, torch.nn.Conv2d):
    """A convolution that computes γ · cos(w, patch) + β.

    A patch is the receptive field of one output.  γ is as for :class:`CosineLinear`.

    Args:
        All arguments: as for :class:`torch.nn.Conv2d`.

    Shape:
        - x: (N, C, H, W) or (C, H, W)
        - output: that of :class:`torch.nn.Conv2d`

    Raises:
        AnynormError: An argument has a wrong type or value.

    Example:
        >>> CosineConv2d(4, 3, 5, padding=2)(torch.randn(2, 4, 8, 8)).shape
        torch.Size([2, 3, 8, 8])

    Reference:
        Luo et al. 2017, arXiv:1702.05870.
    """


class CosineConv3d(_CosineConv, torch.nn.Conv3d):
    """A convolution that computes γ · cos(w, patch) + β.

    A patch is the receptive field of one output.  γ is as for :class:`CosineLinear`.

    Args:
        All arguments: as for :class:`torch.nn.Conv3d`.

    Shape:
        - x: (N, C, D, H, W) or (C, D, H, W)
        - output: that of :class:`torch.nn.Conv3d`

    Raises:
        AnynormError: An argument has a wrong type or value.

    Example:
        >>> CosineConv3d(4, 3, 3, padding=1)(torch.randn(2, 4, 5, 5, 5)).shape
        torch.Size([2, 3, 5, 5, 5])

    Reference:
        Luo et al. 2017, arXiv:1702.05870.
    """


_COSINE: dict[type[torch.nn.Module], type[_Cosine]] = {
    torch.nn.Linear: CosineLinear,
    torch.nn.Conv1d: CosineConv1d,
    torch.nn.Conv2d: CosineConv2d,
    torch.nn.Conv3d: CosineConv3d,
}


def normalized(
    layer: torch.nn.Module, name: str, *, activation: Activation = None, **options: Any
) -> torch.nn.Module:
    """Return a linear layer or a convolution together with a normalizer.

    A normalizer of activations follows the layer in a `Sequential`.  A weight normalizer is
    registered as a parametrization of the layer, which is changed in place.  Cosine returns a new
    layer with the same weight.

    Args:
        layer: the layer.
        name: the normalizer's name in :data:`anynorm.catalogue`.
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        options: as for :func:`anynorm.create`.

    Returns:
        The module with the layer and the normalizer.

    Raises:
        UnknownNameError: There is no normalizer, option or activation of that name.
        AnynormError: The layer is of another kind, or its weight cannot be normalized: it has none
            yet, or, for cosine, is parametrized.

    Example:
        >>> normalized(torch.nn.Linear(3, 8), "group", groups=2)(torch.randn(5, 3)).shape
        torch.Size([5, 8])
    """
    row = entry(name)
    if not isinstance(layer, tuple(_COSINE)):
        raise AnynormError(
            f"normalized() takes a linear layer or a convolution, got {type(layer).__name__}. "
            "Give it the layer itself, or put anynorm.create(…) after the module."
        )
    if row.spec.on == "input":
        return _followed(layer, name, activation, options)
    _check_weight(layer, row)
    row.tune(**options)
    normal = _cosine(layer) if row.spec.on == "both" else _parametrized(layer, row)
    return normal if activation is None else torch.nn.Sequential(normal, Activate(activation))


class Activate(Unscripted):
    """φ as a layer, such as the rest of a normalizer that was folded.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.

    Shape:
        - x: any
        - residual: the shape and type of `x`; it is added before φ
        - output: that of `x`, if the function keeps it

    Raises:
        UnknownNameError: There is no activation with this name.
        AnynormError: The activation is neither a name nor a function, or the residual is of another
            type than `x`.
        ShapeError: The residual has another shape than `x`.

    Example:
        >>> Activate("relu")(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        F.check_activation(activation)
        self.activation = activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return φ(x + residual): what is left of a layer whose normalization was folded away."""
        if residual is not None:
            F.check_residual(x, residual)
        return F.activate(x if residual is None else x + residual, self.activation)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        """Return the activation's name."""
        return F.activation_name(self.activation)


def _followed(
    layer: torch.nn.Module, name: str, activation: Activation, options: dict[str, Any]
) -> torch.nn.Module:
    convolution = not isinstance(layer, torch.nn.Linear)
    units = layer.out_channels if convolution else layer.out_features
    weight = layer.weight
    assert isinstance(units, int)
    assert isinstance(weight, Tensor)
    norm = create(
        name,
        units,
        channels_first=convolution,
        activation=activation,
        device=weight.device,
        dtype=weight.dtype,
        **options,
    )
    return torch.nn.Sequential(layer, norm)


def _check_weight(layer: torch.nn.Module, row: Entry) -> None:
    weight = layer._parameters.get("weight")
    if weight is not None and is_lazy(weight):
        raise AnynormError(
            f"'{row.name}' normalizes the weight, which {type(layer).__name__} does not have yet. "
            "Call the layer once on an input first."
        )
    if row.spec.on == "both" and weight is None:
        raise AnynormError(
            f"'{row.name}' needs a layer with a weight of its own, and this one is parametrized. "
            "Use torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') first."
        )


def _parametrized(layer: torch.nn.Module, row: Entry) -> torch.nn.Module:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    norm = NormalizedWeight(row.spec, weight, row.eps)
    return parametrize.register_parametrization(layer, "weight", norm)


def _cosine(layer: torch.nn.Module) -> torch.nn.Module:
    """A cosine layer that shares the attributes, weight and bias of `layer`."""
    cls = next(cosine for plain, cosine in _COSINE.items() if isinstance(layer, plain))
    cosine = cls.__new__(cls)
    torch.nn.Module.__init__(cosine)
    cosine.__dict__.update(copy.copy(layer.__dict__))
    cosine._parameters = dict(layer._parameters)
    cosine.adopt()
    return cosine
