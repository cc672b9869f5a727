"""Drop-in replacements of torch.nn's normalization layers.

Each is a subclass of torch's layer, so `isinstance` checks, weight-decay filters and
`torch.optim.swa_utils.update_bn` work as before; constructor, state dict and `repr` are torch's
own.  The layers add `activation=`; a residual and (except in layer and RMS norm) a padding mask as
arguments of the call; errors that name the shape, the rule and the fix; and robust running
statistics (see :mod:`anynorm.ops.running`).
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import Signature, signature
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from anynorm import functional as F
from anynorm.errors import ShapeError
from anynorm.functional import Activation, Sync
from anynorm.nn.arguments import check_built_with, signature_of, twin_of
from anynorm.nn.fx import entered
from anynorm.nn.scripting import Unscripted
from anynorm.nn.sync_module import Sharing, layer_of, shown
from anynorm.spec import Spec

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "RMSNorm",
    "SyncBatchNorm",
]

_Device = torch.device | str | int | None


class _Activated(Unscripted):
    """Adds `activation=` to the arguments of torch's layer, and shows it in `repr`."""

    activation: Activation
    __signature__: ClassVar[Signature]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A subclass may have its own arguments; arguments that these bases pass on are torch's.
        owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
        whole = signature(vars(owner)["__init__"])
        passed_on = any(p.kind is p.VAR_POSITIONAL for p in whole.parameters.values())
        if owner.__module__ != __name__ or not passed_on:
            cls.__signature__ = whole.replace(parameters=list(whole.parameters.values())[1:])
            return
        twin = twin_of(cls)
        if twin is not torch.nn.Module:
            own = ("activation", "sync") if issubclass(cls, Sharing) else ("activation",)
            cls.__signature__ = signature_of(twin, own)

    def __init__(self, *args: Any, activation: Activation = None, **kwargs: Any) -> None:
        check_built_with(type(self), args, kwargs)
        super().__init__(*args, **kwargs)
        F.check_activation(activation)
        self.activation = activation

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "activation" not in state and "activation" not in self._modules:
            self.activation = None

    def extra_repr(self) -> str:
        """Return torch's line, followed by the activation if there is one."""
        shown = F.activation_name(self.activation)
        return super().extra_repr() + (f", activation={shown}" if shown else "")


_BATCH = Spec.of("[n] c [...]")


class _BatchNorm(_Activated, Sharing, torch.nn.modules.batchnorm._BatchNorm):
    """Batch norm's forward for all ranks."""

    ranks: ClassVar[Sequence[int]]
    layout: ClassVar[str]

    if TYPE_CHECKING:

        def __init__(
            self,
            num_features: int,
            eps: float = 1e-5,
            momentum: float | None = 0.1,
            affine: bool = True,
            track_running_stats: bool = True,
            device: _Device = None,
            dtype: torch.dtype | None = None,
            *,
            bias: bool = True,
            activation: Activation = None,
            sync: Sync = None,
        ) -> None: ...

    else:

        def __init__(self, *args: Any, sync: Sync = None, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if sync is not None:
                self.sync = F.check_sync(sync)

    def forward(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        residual: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Normalize `input`, see the class for its shape; add `residual` before φ.

        Values where `mask` is False are ignored, and become 0.
        """
        if type(input) is not Tensor or residual is not None or mask is not None:
            recorded: Tensor | None = entered(self, input, residual, mask)
            if recorded is not None:
                return recorded
        if input.dim() not in self.ranks:
            raise _wrong_rank(self, input)
        if input.shape[1] != self.num_features:
            raise _wrong_channels(self, input, 1)
        buffers, parameters = self._buffers, self._parameters  # three times as fast as attributes
        mean, var = buffers["running_mean"], buffers["running_var"]
        training = self.training or mean is None
        if training and not self.track_running_stats:
            mean = var = None
        weight = parameters["weight"] if "weight" in parameters else self.weight  # noqa: SIM401
        bias = parameters["bias"] if "bias" in parameters else self.bias  # noqa: SIM401
        if mask is not None or (self.sync is not None and self.training):
            return self._by_formula(input, mean, var, weight, bias, residual, training, mask)
        return F.batch_norm(
            input,
            mean,
            var,
            weight,
            bias,
            training,
            self.momentum,
            self.eps,
            num_batches_tracked=buffers["num_batches_tracked"],
            activation=self.activation,
            residual=residual,
        )

    if TYPE_CHECKING:
        __call__ = forward

    def _by_formula(
        self,
        x: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        training: bool,
        mask: Tensor | None,
    ) -> Tensor:
        """Normalize with statistics of several processes, or with a padding mask."""
        running = None
        if mean is not None and var is not None:
            running = F.Running(mean, var, self.num_batches_tracked, self.momentum)
        sync = self.sync if self.training else None
        return F.normalize(
            x,
            _BATCH,
            weight,
            bias,
            running,
            training=training,
            eps=self.eps,
            activation=self.activation,
            residual=residual,
            sync=sync,
            layer="" if sync is None else layer_of(self),
            mask=mask,
        )

    def extra_repr(self) -> str:
        """Return torch's line, with the activation and the ranks if there are any."""
        return super().extra_repr() + shown(self.sync)


def _wrong_rank(layer: Any, x: Tensor) -> ShapeError:
    family = type(layer).__name__.rstrip("123d")
    fitting = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}.get(x.dim())
    return ShapeError(
        f"{type(layer).__name__} takes {layer.layout}, got {x.dim()} axes in shape "
        f"{tuple(x.shape)}. "
        + (f"Use {family}{fitting}, or reshape the input." if fitting else "Reshape the input.")
    )


def _wrong_channels(layer: Any, x: Tensor, axis: int) -> ShapeError:
    return ShapeError(
        f"{type(layer).__name__}({layer.num_features}) takes {layer.layout} with "
        f"C = {layer.num_features}, got {x.shape[axis]} channels in shape {tuple(x.shape)}. "
        f"Build it with num_features={x.shape[axis]}, or move the channels to axis {axis}."
    )


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    """Batch norm of (N, C) or (N, C, L).

    Each channel has one μ and one σ, over samples and positions.  It is a subclass of
    :class:`torch.nn.BatchNorm1d` and has its arguments and its state.  It adds the activation,
    synchronised statistics, and a residual and a mask in the call.  Running statistics are never
    updated with values that are not finite.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        sync: the processes that share statistics in training: True for all, a process group, one
            dimension of a device mesh, or a number of consecutive ranks.
        The other arguments, and the state: as for :class:`torch.nn.BatchNorm1d`.

    Shape:
        - input: (N, C) or (N, C, L)
        - residual: the input's shape and type; it is added before φ
        - mask: (N,) for (N, C), (N, L) for (N, C, L), or the input's shape with 1 for any axis;
          bool, True for the values that count; all others (padding) are ignored in statistics and
          gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes or channels, or in training one value per
            channel; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.
        CollectiveError: A process that shares statistics has ended.

    Example:
        >>> BatchNorm1d(3, activation="relu")(torch.randn(8, 3)).min() >= 0
        tensor(True)
        >>> x, valid = torch.tensor([[1.0], [3.0], [torch.nan]]), torch.tensor([True, True, False])
        >>> BatchNorm1d(1, affine=False)(x, mask=valid).flatten()
        tensor([-1.0000,  1.0000,  0.0000])

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    ranks = (2, 3)
    layout = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    """Batch norm of (N, C, H, W).

    Each channel has one μ and one σ, over samples and positions.  It is a subclass of
    :class:`torch.nn.BatchNorm2d` and has its arguments and its state.  It adds the activation,
    synchronised statistics, and a residual and a mask in the call.  Running statistics are never
    updated with values that are not finite.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        sync: the processes that share statistics in training: True for all, a process group, one
            dimension of a device mesh, or a number of consecutive ranks.
        The other arguments, and the state: as for :class:`torch.nn.BatchNorm2d`.

    Shape:
        - input: (N, C, H, W)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, H, W), or the input's shape with 1 for any axis; bool, True for the values that
          count; all others (padding) are ignored in statistics and gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes or channels, or in training one value per
            channel; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.
        CollectiveError: A process that shares statistics has ended.

    Example:
        >>> BatchNorm2d(3)(torch.randn(8, 3, 4, 4)).shape
        torch.Size([8, 3, 4, 4])

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    ranks = (4,)
    layout = "(N, C, H, W)"


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    """Batch norm of (N, C, D, H, W).

    Each channel has one μ and one σ, over samples and positions.  It is a subclass of
    :class:`torch.nn.BatchNorm3d` and has its arguments and its state.  It adds the activation,
    synchronised statistics, and a residual and a mask in the call.  Running statistics are never
    updated with values that are not finite.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        sync: the processes that share statistics in training: True for all, a process group, one
            dimension of a device mesh, or a number of consecutive ranks.
        The other arguments, and the state: as for :class:`torch.nn.BatchNorm3d`.

    Shape:
        - input: (N, C, D, H, W)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, D, H, W), or the input's shape with 1 for any axis; bool, True for the values
          that count; all others (padding) are ignored in statistics and gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes or channels, or in training one value per
            channel; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.
        CollectiveError: A process that shares statistics has ended.

    Example:
        >>> BatchNorm3d(3)(torch.randn(2, 3, 4, 4, 4)).shape
        torch.Size([2, 3, 4, 4, 4])

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    ranks = (5,)
    layout = "(N, C, D, H, W)"


class SyncBatchNorm(_BatchNorm):
    """Batch norm of (N, C, *) with statistics over several processes, on CPUs and GPUs.

    It is not a subclass of torch's layer, because `DistributedDataParallel` refuses those on CPUs.

    Args:
        process_group: the processes, in any form that `sync` of :class:`BatchNorm1d` takes; None
            for the default group.
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        bias: whether there is β, if there is γ.
        The other arguments, and the state: as for :class:`torch.nn.SyncBatchNorm`.

    Shape:
        - input: (N, C, *)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, *), or the input's shape with 1 for any axis; bool, True for the values that
          count; all others (padding) are ignored in statistics and gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes or channels, or in training one value per
            channel; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.
        CollectiveError: A process that shares statistics has ended.

    Example:
        >>> SyncBatchNorm(3, activation="relu").eval()(torch.randn(8, 3)).min() >= 0
        tensor(True)

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    ranks = range(2, 65)
    layout = "(N, C, *)"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Sync = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        activation: Activation = None,
    ) -> None:
        args = (num_features, eps, momentum, affine, track_running_stats, device, dtype)
        group = True if process_group is None else process_group
        # Older versions of torch have no layers without β.
        without: dict[str, Any] = {} if bias else {"bias": False}
        super().__init__(*args, sync=group, activation=activation, **without)

    @property
    def process_group(self) -> Sync:
        """The group that was given; None for the default group."""
        return None if self.sync is True else self.sync

    def extra_repr(self) -> str:
        """Return torch's line, with the ranks if they are not all."""
        return super().extra_repr().replace(", sync=True", "")


class _LazyBatchNorm(_BatchNorm):
    """The common base of the lazy layers."""

    if TYPE_CHECKING:

        def __init__(
            self,
            eps: float = 1e-5,
            momentum: float | None = 0.1,
            affine: bool = True,
            track_running_stats: bool = True,
            device: _Device = None,
            dtype: torch.dtype | None = None,
            *,
            bias: bool = True,
            activation: Activation = None,
            sync: Sync = None,
        ) -> None: ...

    def initialize_parameters(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        residual: Tensor | None = None,  # noqa: ARG002 - torch passes on what the layer is called with
        mask: Tensor | None = None,  # noqa: ARG002
    ) -> None:
        """Set the number of channels by the first input, or by a state that was loaded before."""
        F.need_tensor(type(self).__name__, "input", input)
        super().initialize_parameters(input)  # type: ignore[misc]
        if self.num_features == 0:  # torch does not set it if a state was loaded
            state = self.running_mean if self.running_mean is not None else self.weight
            self.num_features = (input.shape[1:] if state is None else state.shape)[0]


class LazyBatchNorm1d(_LazyBatchNorm, torch.nn.LazyBatchNorm1d):
    """A :class:`BatchNorm1d` that gets its number of channels from the first input.

    The first call makes it a :class:`BatchNorm1d`.  A state dict that is loaded before it also sets
    the number of channels.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        sync: the processes that share statistics in training: True for all, a process group, one
            dimension of a device mesh, or a number of consecutive ranks.
        The other arguments, and the state: as for :class:`torch.nn.LazyBatchNorm1d`.

    Shape:
        - input: (N, C) or (N, C, L)
        - residual: the input's shape and type; it is added before φ
        - mask: (N,) for (N, C), (N, L) for (N, C, L), or the input's shape with 1 for any axis;
          bool, True for the values that count; all others (padding) are ignored in statistics and
          gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes or channels, or in training one value per
            channel; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.
        CollectiveError: A process that shares statistics has ended.

    Example:
        >>> LazyBatchNorm1d()(torch.randn(8, 3)).shape
        torch.Size([8, 3])

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    cls_to_become = BatchNorm1d
    ranks = BatchNorm1d.ranks
    layout = BatchNorm1d.layout


class LazyBatchNorm2d(_LazyBatchNorm, torch.nn.LazyBatchNorm2d):
    """A :class:`BatchNorm2d` that gets its number of channels from the first input.

    The first call makes it a :class:`BatchNorm2d`.  A state dict that is loaded before it also sets
    the number of channels.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        sync: the processes that share statistics in training: True for all, a process group, one
            dimension of a device mesh, or a number of consecutive ranks.
        The other arguments, and the state: as for :class:`torch.nn.LazyBatchNorm2d`.

    Shape:
        - input: (N, C, H, W)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, H, W), or the input's shape with 1 for any axis; bool, True for the values that
          count; all others (padding) are ignored in statistics and gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes or channels, or in training one value per
            channel; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.
        CollectiveError: A process that shares statistics has ended.

    Example:
        >>> layer = LazyBatchNorm2d()
        >>> layer(torch.randn(8, 3, 4, 4)).shape, type(layer).__name__
        (torch.Size([8, 3, 4, 4]), 'BatchNorm2d')

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    cls_to_become = BatchNorm2d
    ranks = BatchNorm2d.ranks
    layout = BatchNorm2d.layout


class LazyBatchNorm3d(_LazyBatchNorm, torch.nn.LazyBatchNorm3d):
    """A :class:`BatchNorm3d` that gets its number of channels from the first input.

    The first call makes it a :class:`BatchNorm3d`.  A state dict that is loaded before it also sets
    the number of channels.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        sync: the processes that share statistics in training: True for all, a process group, one
            dimension of a device mesh, or a number of consecutive ranks.
        The other arguments, and the state: as for :class:`torch.nn.LazyBatchNorm3d`.

    Shape:
        - input: (N, C, D, H, W)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, D, H, W), or the input's shape with 1 for any axis; bool, True for the values
          that count; all others (padding) are ignored in statistics and gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes or channels, or in training one value per
            channel; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.
        CollectiveError: A process that shares statistics has ended.

    Example:
        >>> LazyBatchNorm3d()(torch.randn(2, 3, 4, 4, 4)).shape
        torch.Size([2, 3, 4, 4, 4])

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    cls_to_become = BatchNorm3d
    ranks = BatchNorm3d.ranks
    layout = BatchNorm3d.layout


class _InstanceNorm(_Activated, torch.nn.modules.instancenorm._InstanceNorm):
    """Instance norm's forward for all ranks, with or without a batch axis."""

    ranks: ClassVar[tuple[int, ...]]
    layout: ClassVar[str]

    if TYPE_CHECKING:

        def __init__(
            self,
            num_features: int,
            eps: float = 1e-5,
            momentum: float = 0.1,
            affine: bool = False,
            track_running_stats: bool = False,
            device: _Device = None,
            dtype: torch.dtype | None = None,
            *,
            bias: bool = True,
            activation: Activation = None,
        ) -> None: ...

    def forward(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        residual: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Normalize `input`, see the class for its shape; add `residual` before φ.

        Values where `mask` is False are ignored, and become 0.
        """
        if type(input) is not Tensor or residual is not None or mask is not None:
            recorded: Tensor | None = entered(self, input, residual, mask)
            if recorded is not None:
                return recorded
        if input.dim() not in self.ranks:
            raise _wrong_rank(self, input)
        batched = input.dim() == self.ranks[-1]
        axis = 1 if batched else 0
        sized = self.affine or self.track_running_stats  # otherwise any number of channels fits
        if sized and input.shape[axis] != self.num_features:
            raise _wrong_channels(self, input, axis)
        if batched:
            return self._normalize(input, residual, mask)
        others = (given if given is None else given[None] for given in (residual, mask))
        return self._normalize(input[None], *others).squeeze(0)

    if TYPE_CHECKING:
        __call__ = forward

    def _normalize(self, x: Tensor, residual: Tensor | None, mask: Tensor | None) -> Tensor:
        return F.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
            activation=self.activation,
            residual=residual,
            mask=mask,
        )


class InstanceNorm1d(_InstanceNorm, torch.nn.InstanceNorm1d):
    """Instance norm of (N, C, L) or (C, L).

    Each channel of each sample has one μ and one σ, over positions.  It is a subclass of
    :class:`torch.nn.InstanceNorm1d` and has its arguments and its state.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        The other arguments, and the state: as for :class:`torch.nn.InstanceNorm1d`.

    Shape:
        - input: (N, C, L) or (C, L)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, L) for (N, C, L), (L,) for (C, L), or the input's shape with 1 for any axis;
          bool, True for the values that count; all others (padding) are ignored in statistics and
          gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes, a single position, or a wrong number of
            channels for γ or running statistics; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> InstanceNorm1d(3)(torch.randn(8, 3, 5)).shape
        torch.Size([8, 3, 5])

    Reference:
        Ulyanov et al. 2016, arXiv:1607.08022.
    """

    ranks = (2, 3)
    layout = "(N, C, L) or (C, L)"


class InstanceNorm2d(_InstanceNorm, torch.nn.InstanceNorm2d):
    """Instance norm of (N, C, H, W) or (C, H, W).

    Each channel of each sample has one μ and one σ, over positions.  It is a subclass of
    :class:`torch.nn.InstanceNorm2d` and has its arguments and its state.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        The other arguments, and the state: as for :class:`torch.nn.InstanceNorm2d`.

    Shape:
        - input: (N, C, H, W) or (C, H, W)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, H, W) for (N, C, H, W), (H, W) for (C, H, W), or the input's shape with 1 for
          any axis; bool, True for the values that count; all others (padding) are ignored in
          statistics and gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes, a single position, or a wrong number of
            channels for γ or running statistics; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> InstanceNorm2d(3)(torch.randn(3, 5, 5)).shape
        torch.Size([3, 5, 5])

    Reference:
        Ulyanov et al. 2016, arXiv:1607.08022.
    """

    ranks = (3, 4)
    layout = "(N, C, H, W) or (C, H, W)"


class InstanceNorm3d(_InstanceNorm, torch.nn.InstanceNorm3d):
    """Instance norm of (N, C, D, H, W) or (C, D, H, W).

    Each channel of each sample has one μ and one σ, over positions.  It is a subclass of
    :class:`torch.nn.InstanceNorm3d` and has its arguments and its state.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        The other arguments, and the state: as for :class:`torch.nn.InstanceNorm3d`.

    Shape:
        - input: (N, C, D, H, W) or (C, D, H, W)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, D, H, W) for (N, C, D, H, W), (D, H, W) for (C, D, H, W), or the input's shape
          with 1 for any axis; bool, True for the values that count; all others (padding) are
          ignored in statistics and gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The input has a wrong number of axes, a single position, or a wrong number of
            channels for γ or running statistics; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> InstanceNorm3d(3)(torch.randn(2, 3, 4, 4, 4)).shape
        torch.Size([2, 3, 4, 4, 4])

    Reference:
        Ulyanov et al. 2016, arXiv:1607.08022.
    """

    ranks = (4, 5)
    layout = "(N, C, D, H, W) or (C, D, H, W)"


class LayerNorm(_Activated, torch.nn.LayerNorm):
    """Layer norm over the last axes.

    Each vector of the last axes has one μ and one σ.  It is a subclass of
    :class:`torch.nn.LayerNorm` and has its arguments and its state.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        The other arguments, and the state: as for :class:`torch.nn.LayerNorm`.

    Shape:
        - input: (*, normalized_shape)
        - residual: the input's shape and type; it is added before φ
        - output: the input's shape

    Raises:
        ShapeError: The input does not end in `normalized_shape`, or the residual does not fit it.
        AnynormError: An argument has a wrong type or value.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> LayerNorm(10)(torch.randn(2, 7, 10)).shape
        torch.Size([2, 7, 10])

    Reference:
        Ba et al. 2016, arXiv:1607.06450.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            normalized_shape: int | Sequence[int],
            eps: float = 1e-5,
            elementwise_affine: bool = True,
            bias: bool = True,
            device: _Device = None,
            dtype: torch.dtype | None = None,
            *,
            activation: Activation = None,
        ) -> None: ...

    def forward(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        residual: Tensor | None = None,
    ) -> Tensor:
        """Normalize `input` (*, normalized_shape); add `residual` before φ."""
        if type(input) is not Tensor or residual is not None:
            recorded: Tensor | None = entered(self, input, residual)
            if recorded is not None:
                return recorded
        return F.layer_norm(
            input,
            self.normalized_shape,
            self.weight,
            self.bias,
            self.eps,
            activation=self.activation,
            residual=residual,
        )

    if TYPE_CHECKING:
        __call__ = forward


class RMSNorm(_Activated, torch.nn.RMSNorm):
    """RMS norm over the last axes.

    It is layer norm without μ: σ is the root mean square.  It is a subclass of
    :class:`torch.nn.RMSNorm` and has its arguments and its state.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        The other arguments, and the state: as for :class:`torch.nn.RMSNorm`.

    Shape:
        - x: (*, normalized_shape)
        - residual: the input's shape and type; it is added before φ
        - output: the input's shape

    Raises:
        ShapeError: The input does not end in `normalized_shape`, or the residual does not fit it.
        AnynormError: An argument has a wrong type or value.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> RMSNorm(10)(torch.randn(2, 7, 10)).shape
        torch.Size([2, 7, 10])

    Reference:
        Zhang & Sennrich 2019, arXiv:1910.07467.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            normalized_shape: int | Sequence[int],
            eps: float | None = None,
            elementwise_affine: bool = True,
            device: _Device = None,
            dtype: torch.dtype | None = None,
            *,
            activation: Activation = None,
        ) -> None: ...

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `x` (*, normalized_shape); add `residual` before φ."""
        if type(x) is not Tensor or residual is not None:
            recorded: Tensor | None = entered(self, x, residual)
            if recorded is not None:
                return recorded
        return F.rms_norm(
            x,
            self.normalized_shape,
            self.weight,
            self.eps,
            activation=self.activation,
            residual=residual,
        )

    if TYPE_CHECKING:
        __call__ = forward


class GroupNorm(_Activated, torch.nn.GroupNorm):
    """Group norm of (N, C, *).

    Each group of channels of each sample has one μ and one σ, over its channels and positions.  It
    is a subclass of :class:`torch.nn.GroupNorm` and has its arguments and its state.

    Args:
        activation: φ, a name in :data:`anynorm.activations.ACTIVATIONS`, a function or None.
        The other arguments, and the state: as for :class:`torch.nn.GroupNorm`.

    Shape:
        - input: (N, C, *)
        - residual: the input's shape and type; it is added before φ
        - mask: (N, *), or the input's shape with 1 for any axis; bool, True for the values that
          count; all others (padding) are ignored in statistics and gradients, and become 0
        - output: the input's shape

    Raises:
        ShapeError: The groups do not divide the channels (the message has the numbers that do); the
            input has a wrong number of channels; or the residual or the mask does not fit it.
        AnynormError: An argument has a wrong type or value, such as a mask that is not bool.
        UnknownNameError: There is no activation with this name.

    Example:
        >>> GroupNorm(3, 6)(torch.randn(2, 6, 5)).shape
        torch.Size([2, 6, 5])

    Reference:
        Wu & He 2018, arXiv:1803.08494.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            num_groups: int,
            num_channels: int,
            eps: float = 1e-5,
            affine: bool = True,
            device: _Device = None,
            dtype: torch.dtype | None = None,
            *,
            bias: bool = True,
            activation: Activation = None,
        ) -> None: ...

    def forward(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        residual: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Normalize `input` (N, C, *); add `residual` before φ.

        Values where `mask` is False are ignored, and become 0.
        """
        if type(input) is not Tensor or residual is not None or mask is not None:
            recorded: Tensor | None = entered(self, input, residual, mask)
            if recorded is not None:
                return recorded
        return F.group_norm(
            input,
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            activation=self.activation,
            residual=residual,
            mask=mask,
        )

    if TYPE_CHECKING:
        __call__ = forward
