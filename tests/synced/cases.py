"""Layers and their parts of a batch: the same on one process and on several."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

import anynorm

# How many samples each rank has; some have none.
PARTS = {2: (3, 5), 3: (4, 0, 1), 4: (2, 1, 0, 5)}
CHANNELS = 6


@dataclass(frozen=True)
class Case:
    """A layer, built by its name, and an input of so many samples."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    positions: tuple[int, ...] = (4, 3)
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    residual: bool = False
    far: float = 0.0

    def layer(self, sync=None):
        torch.manual_seed(1)
        size = (CHANNELS, *self.positions) if self.name == "batch-per-activation" else CHANNELS
        options = {**self.options, "dtype": self.dtype}
        if self.name == "SyncBatchNorm":
            layer = (anynorm.SyncBatchNorm if sync else anynorm.BatchNorm2d)(size, **options)
        elif make := getattr(anynorm, self.name, None):
            layer = make(size, sync=sync, **options)
        else:
            layer = anynorm.create(self.name, size, sync=sync, **options)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(0.5, 1.5)
        return layer

    def tensors(self, samples):
        """Input, residual and cotangent of the whole batch."""
        shape = (samples, CHANNELS, *self.positions)
        made = torch.Generator().manual_seed(7)
        x, residual, dy = torch.randn(3, *shape, generator=made, dtype=torch.float64)
        x = x * torch.linspace(0.5, 2, samples).double().view(-1, *[1] * (len(shape) - 1))
        return tuple(self._laid(t) for t in (x + self.far, residual, dy))

    def _laid(self, t):
        t = t.to(self.dtype)
        return t.contiguous(memory_format=torch.channels_last) if self.channels_last else t

    def run(self, layer, x, residual, dy):
        """Output, gradients and running statistics."""
        x, residual = x.clone().requires_grad_(), residual.clone().requires_grad_()
        y = layer(x, residual) if self.residual else layer(x)
        y.backward(dy)
        found = {"y": y.detach(), "dx": x.grad}
        if self.residual:
            found["dresidual"] = residual.grad
        found |= {f"d{name}": p.grad for name, p in layer.named_parameters()}
        return found | {name: b.clone() for name, b in layer.named_buffers()}


_RELU = {"activation": "relu"}
FORMULAS = [
    Case("batch"),
    Case("BatchNorm2d"),
    Case("SyncBatchNorm", {"momentum": None}),
    Case("BatchNorm2d", {"affine": False}),
    Case("BatchNorm2d", _RELU, residual=True),
    Case("BatchNorm2d", {"activation": "silu"}, residual=True),
    Case("BatchNorm2d", _RELU, channels_last=True, residual=True),
    Case("BatchNorm2d", channels_last=True),
    Case("BatchNorm1d", positions=(5,)),
    Case("BatchNorm1d", positions=()),
    Case("BatchNorm2d", far=1000.0),
    Case("batch-per-activation"),
    Case("l1-batch"),
    Case("l1-batch", _RELU, channels_last=True),
    Case("lp-batch", {"p": 3.0}),
    Case("lp-batch"),
    Case("linf-batch"),
    Case("batch-renorm", {"r_max": 1.2, "d_max": 0.1}),
    Case("zca", {"groups": 2}),
    Case("pca", {"groups": 3}),
]
CASES = [
    replace(case, dtype=dtype) for case in FORMULAS for dtype in (torch.float32, torch.float64)
]
