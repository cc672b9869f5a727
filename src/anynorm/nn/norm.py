"""`Norm`: a layer for any pattern; `create`: a layer by its name in the catalogue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anynorm import functional as F
from anynorm.catalogue import entry
from anynorm.errors import AnynormError, ShapeError
from anynorm.functional import Activation, Running, Sync
from anynorm.nn import sync_module
from anynorm.nn.fx import entered
from anynorm.pattern import Pattern
from anynorm.spec import SCALES, Constant, Dialect, Scale, Spec

__all__ = ["Norm", "create"]


class Norm(sync_module.Sharing):
    """The formula h = φ(γ · (x − μ) / σ + β + residual) as a layer, for any bracket pattern.

    It has running statistics if samples share statistics.

    Args:
        pattern: the axes of the input, in brackets those that share one μ and σ, for example ``"n
            (g [c]) [...]"`` for group norm; or a whole :class:`~anynorm.spec.Spec`, which then says
            what scale, center, p and constant are.
        channels: the shape of γ and β, which start at the pattern's axis c; for ``"[n] ..."`` the
            shape of one sample.
        scale: what σ is, a name of :data:`anynorm.spec.SCALES`, a :class:`~anynorm.spec.Scale` or
            None for 1.
        center: whether μ is subtracted.
        p, constant: values that replace the scale's own.
        eps: ε in σ = √(s² + ε).
        momentum: the weight of the newest batch in the running statistics, from 0 to 1; None for
            the cumulative average.
        affine: whether there are γ and β, where the specification has them.
        bias: whether there is β; None for the specification's, which is one where μ is subtracted.
        track_running_stats: whether there are running statistics, if samples share statistics.
        activation: φ, the name of one in :data:`anynorm.activations.ACTIVATIONS`, a function or
            None.
        sync: over whose batches statistics are taken in training, as for
            :class:`~anynorm.BatchNorm1d`; for patterns that take them over the whole batch.
        device, dtype: those of the state.
        sizes: further keywords, the sizes of the parts of split axes, as in ``g=8``.

    Shape:
        - x: any that fits the pattern
        - residual: the shape and type of `x`; it is added before φ
        - mask: that of `x` with 1 for any axis, or without the channels; bool, True for the values
          that count; all others (padding) have no part in statistics and gradients, and become 0
        - output: that of `x`

    Raises:
        PatternError: The pattern cannot be read.
        ShapeError: The channels do not fit the sizes of the parts; or the input, the residual or
            the mask does not fit.
        UnknownNameError: There is no scale or activation of that name.
        AnynormError: An argument has a wrong type or value, or the pattern has nothing to
            synchronise.
        CollectiveError: A process that shares statistics is gone.

    Example:
        >>> norm = Norm("n (g [c]) [...]", 6, g=3, activation="relu")
        >>> norm(torch.randn(2, 6, 5)).shape
        torch.Size([2, 6, 5])
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    running_cov: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        pattern: str | Pattern | Spec,
        channels: int | Sequence[int],
        *,
        scale: str | Scale | None = "std",
        center: bool = True,
        p: float | None = None,
        constant: Constant | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        bias: bool | None = None,
        track_running_stats: bool = True,
        activation: Activation = None,
        sync: Sync = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **sizes: int,
    ) -> None:
        super().__init__()
        given = {"channels": channels, "eps": eps, "momentum": momentum}
        F.check_arguments(type(self).__name__, given)
        F.check_activation(activation)
        formula = {"center": center, "scale": scale, "p": p, "constant": constant}
        spec = _checked_spec(pattern, formula)
        affine = affine and not spec.is_identity and spec.learned.gain != "none"
        self.spec = _having(spec, affine, bias)
        self.channels = (channels,) if isinstance(channels, int) else tuple(channels)
        self.sizes = _checked_sizes(self.spec.pattern, self.channels, sizes)
        self.eps, self.momentum, self.activation = eps, momentum, activation
        if (group := F.check_sync(sync)) is not None:
            F.check_synced(self.spec)
            self.sync = group
        self.affine = affine
        self.track_running_stats = track_running_stats and self.spec.uses_batch
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self._add_statistics(factory)
        self._add_parameters(factory)

    @classmethod
    def of(cls, spec: Spec, channels: int | Sequence[int], **options: Any) -> Norm:
        """Build the layer of a specification.

        Args:
            spec: the specification.
            channels: the shape of γ and β.
            options: the other arguments of the constructor.

        Returns:
            The layer.
        """
        return cls(spec, channels, **options)

    def _add_parameters(self, factory: dict[str, Any]) -> None:
        learned = self.spec.learned
        gain = (1,) if learned.gain == "scalar" else self.channels
        wanted = (("weight", gain, self.affine), ("bias", self.channels, learned.bias))
        for name, shape, there in wanted:
            parameter = torch.nn.Parameter(torch.empty(shape, **factory))
            self.register_parameter(name, parameter if there else None)
        self.reset_parameters()

    def _add_statistics(self, factory: dict[str, Any]) -> None:
        for name in ("running_mean", "running_var", "running_cov", "num_batches_tracked"):
            self.register_buffer(name, None)
        if not self.track_running_stats:
            return
        shape = self.channels
        self.running_mean = torch.zeros(shape, **factory)
        if self.spec.whitens:
            size = self.sizes.get("c", shape[0] // self.sizes.get("g", 1))
            shape = (shape[0] // size, size, size)
        setattr(self, self._spread, torch.ones(shape, **factory))
        self.num_batches_tracked = torch.tensor(0, device=factory["device"])

    @property
    def _spread(self) -> str:
        return "running_cov" if self.spec.whitens else "running_var"

    def reset_parameters(self) -> None:
        """Set γ and β to where they start, and the running statistics to mean 0 and variance 1.

        γ starts at 1 and β at 0, where the specification does not say otherwise.
        """
        learned = self.spec.learned
        if self.weight is not None:
            start = math.sqrt(math.prod(self.channels)) if learned.start == "root" else 1.0
            torch.nn.init.constant_(self.weight, start - learned.offset)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)
        self.reset_running_stats()

    @torch.no_grad()
    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the variance to 1 (covariance to I) and the count to 0."""
        if not self.track_running_stats:
            return
        self.get_buffer("running_mean").zero_()
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.zero_()
        spread = self.get_buffer(self._spread)
        spread.copy_(torch.eye(spread.shape[-1]) if self.spec.whitens else torch.ones(()))

    def forward(
        self, x: Tensor, residual: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Normalize `x`, of any shape that fits the pattern, and add `residual` before φ.

        Values where `mask` is False have no part in it, and become 0.
        """
        if type(x) is not Tensor or residual is not None or mask is not None:
            recorded: Tensor | None = entered(self, x, residual, mask)
            if recorded is not None:
                return recorded
        plan = self.spec.pattern.plan(x.dim())
        end = plan.first + len(self.channels) if plan.names_channels else None
        if x.shape[plan.first : end] != self.channels and not self.spec.is_identity:
            raise self._unfitting(x, plan.first, end)
        return F.normalize(
            x,
            self.spec,
            self.weight,
            self.bias,
            self._running(),
            training=self.training,
            eps=self.eps,
            sizes=self.sizes,
            activation=self.activation,
            residual=residual,
            sync=self.sync,
            layer="" if self.sync is None else sync_module.layer_of(self),
            mask=mask,
        )

    if TYPE_CHECKING:
        __call__ = forward

    def _running(self) -> Running | None:
        if not self.track_running_stats:
            return None
        buffers = self._buffers
        spread = buffers["running_cov" if self.spec.whitens else "running_var"]
        mean = buffers["running_mean"]
        assert mean is not None
        assert spread is not None
        return Running(mean, spread, buffers["num_batches_tracked"], self.momentum)

    def _unfitting(self, x: Tensor, first: int, end: int | None) -> ShapeError:
        found = tuple(x.shape[first:end])
        return ShapeError(
            f"{type(self).__name__}('{self.spec.pattern}') has γ of shape {self.channels} from "
            f"axis {first} on, got {found} there in an input of shape {tuple(x.shape)}. "
            f"{self._fix(x, first, found)}"
        )

    def _fix(self, x: Tensor, first: int, found: tuple[int, ...]) -> str:
        """What to do about an input whose channels have another size than γ."""
        shape = found[0] if len(found) == 1 else found
        elsewhere = [
            axis for axis in range(1, x.dim()) if x.shape[axis : axis + 1] == self.channels
        ]
        if not elsewhere:
            return f"Build it with channels={shape}, or permute."
        axis = elsewhere[-1]
        return (
            f"Axis {axis} has size {x.shape[axis]}: if the channels are there, give it "
            f"x.movedim({axis}, {first}); if not, build it with channels={shape}."
        )

    def extra_repr(self) -> str:
        """Return the pattern, the channels and whatever differs from the defaults."""
        channels = self.channels[0] if len(self.channels) == 1 else self.channels
        shown = [f"'{self.spec.pattern}'", str(channels), *self._formula(), f"eps={self.eps}"]
        shown += [f"{axis}={size}" for axis, size in self.sizes.items()]
        shown += ["affine=False"] if not self.affine else []
        if self.affine and (self.bias is None) == self.spec.center:
            shown.append(f"bias={self.bias is not None}")
        if self.track_running_stats:
            shown.append(f"momentum={self.momentum}")
        elif self.spec.uses_batch:
            shown.append("track_running_stats=False")
        phi = F.activation_name(self.activation)
        shown += [f"activation={phi}"] if phi else []
        return ", ".join(shown) + sync_module.shown(self.sync)

    def _formula(self) -> list[str]:
        """What the specification says, where it is not what that of a pattern alone would be."""
        spec, learned = self.spec, self.spec.learned
        scale = spec.scale
        name = next((repr(name) for name, known in SCALES.items() if known == scale), str(scale))
        shown = [] if name == "'std'" else [f"scale={name}"]
        shown += [] if spec.center else ["center=False"]
        shown += ["gain='scalar'"] if learned.gain == "scalar" else []
        shown += [f"offset={learned.offset}"] if learned.offset else []
        shown += [] if spec.dialect == Dialect() else [f"dialect={spec.dialect}"]
        return shown if spec.source == "batch" else [*shown, f"source={spec.source}"]


def _checked_spec(pattern: str | Pattern | Spec, formula: dict[str, Any]) -> Spec:
    """The specification of a pattern with its μ and σ; raise if a whole one is given others."""
    if not isinstance(pattern, Spec):
        return Spec.of(pattern, **formula)
    usual = {"center": True, "scale": "std", "p": None, "constant": None}
    given = [name for name, value in formula.items() if value != usual[name]]
    if given:
        raise AnynormError(
            f"{', '.join(given)}= came with a Spec, which contains them. Give a pattern, or "
            "change the Spec with dataclasses.replace(spec, ...)."
        )
    return pattern


def _having(spec: Spec, affine: bool, bias: bool | None) -> Spec:
    """The specification with or without γ and β."""
    learned = spec.learned
    learned = replace(learned, bias=affine and (learned.bias if bias is None else bias))
    return replace(spec, learned=learned if affine else replace(learned, gain="none"))


def _checked_sizes(
    pattern: Pattern, channels: tuple[int, ...], sizes: dict[str, int]
) -> dict[str, int]:
    """The sizes of split parts; raise if one is unknown or does not divide the channels."""
    parts = {part.name for axis in pattern.axes if len(axis) > 1 for part in axis}
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise AnynormError(f"{name}={size!r}: give a positive whole number.")
        if name not in parts:
            raise AnynormError(
                f"{name}= gives the size of a part that pattern '{pattern}' does not split off. "
                + (f"It splits off: {', '.join(sorted(parts))}." if parts else "It splits no axis.")
            )
    plan = pattern.plan(max(len(pattern.axes), 1 + len(channels)))
    plan.affine_view(channels, sizes)
    return dict(sizes)


def create(
    name: str,
    channels: int | Sequence[int],
    *,
    channels_first: bool = False,
    eps: float | None = None,
    momentum: float | None = 0.1,
    affine: bool = True,
    bias: bool | None = None,
    activation: Activation = None,
    sync: Sync = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Norm:
    """Build a normalizer by its name in :data:`anynorm.catalogue`.

    Args:
        name: its name.
        channels: the number of channels, or the shape of γ and β.
        channels_first: whether the input is (N, C, *) and the channels are axis 1, for normalizers
            that otherwise take the last axis (layer, rms).  They then take each sample's positions
            too.
        eps: ε in σ = √(s² + ε); None for the catalogue's.
        bias: whether there is β; None for the catalogue's.
        momentum, affine, activation, sync, device, dtype: as for :class:`Norm`.
        options: those of the entry (``anynorm.catalogue[name].options``), as in ``groups=8``.

    Returns:
        The layer.

    Raises:
        UnknownNameError: There is no normalizer or option of that name; the nearest is suggested.
        ShapeError: The groups do not divide the channels.
        AnynormError: It is a normalizer of weights (use :func:`anynorm.normalized`), or an argument
            has a wrong type or value.

    Example:
        >>> create("group", 64, groups=8)
        Norm('n (g [c]) [...]', 64, eps=1e-05, g=8)
    """
    row = entry(name)
    if row.spec.on != "input":
        raise AnynormError(
            f"'{name}' normalizes weights, so it needs the layer that has them. "
            f"Use anynorm.normalized(layer, '{name}')."
        )
    spec, sizes = row.tune(channels_first=channels_first, **options)
    return Norm.of(
        spec,
        channels,
        eps=row.eps if eps is None else eps,
        momentum=momentum,
        affine=affine,
        bias=bias,
        activation=activation,
        sync=sync,
        device=device,
        dtype=dtype,
        **sizes,
    )
