"""Small models that the verbs are tried on, with γ, β and statistics unlike those of new ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BatchNormAct2d", "Frozen", "lived"]


def lived(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every γ, β and running statistic random values, and put the model into eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if getattr(module, "running_var", None) is None:
            continue
        for name, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.5, 0.5),
            ("running_mean", -0.5, 0.5),
            ("running_var", 0.5, 2.0),
        ):
            values = getattr(module, name)
            if values is not None:
                values.data.copy_(
                    low + (high - low) * torch.rand(values.shape, generator=generator)
                )
    return model.eval()


class BatchNormAct2d(nn.BatchNorm2d):
    """Built like the fused layers of image model collections."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


class Frozen(nn.Module):
    """Built like the frozen batch norm of detection models, with its ε out of sight."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self._hidden = eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self._hidden).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]
