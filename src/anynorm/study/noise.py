"""The noisy control: artificial distribution shift after a normalizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DistributionNoise"]

# Odd, so that no two of 2**63 seeds share a sequence start; large, so that neighbouring seeds do
# not run into each other's steps.
_STRIDE = 0x9E3779B97F4A7C15


class DistributionNoise(nn.Module):
    """Shift and scale every unit by amounts that change at each step (a control, not a method).

    If batch norm worked by stable distributions, this noise would undo its benefit. At each
    training step every unit draws μ ~ U(−0.5, 0.5) and σ ~ U(1, 1.25), and every sample of that
    unit m ~ U(μ − 0.1, μ + 0.1) and s ~ N(σ, 0.1); the output is ``s * a + m``. One forward call is
    one step. In eval mode the input passes unchanged.

    Shapes: input and output (N, C, ...), with C the units; all positions of one sample and unit
    share one m and one s. The noise depends only on `seed` and on the buffer ``calls``. It does not
    use torch's global random state, and restoring the buffer repeats the noise.

    Paper: Santurkar, Tsipras, Ilyas, Madry, *How Does Batch Normalization Help Optimization?*,
    2018, arXiv:1805.11604, section 2.2 and appendix A.

    >>> noise = DistributionNoise(seed=0)
    >>> a = torch.zeros(4, 3, 8, 8)
    >>> noise(a).shape, noise.eval()(a).abs().max()
    (torch.Size([4, 3, 8, 8]), tensor(0.))
    """

    calls: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, a: Tensor) -> Tensor:
        """Return ``s * a + m`` in train mode, `a` in eval mode."""
        if not self.training:
            return a
        shift, scale = self._draw(a.shape[0], a.shape[1])
        self.calls += 1
        each = (*a.shape[:2], *(1,) * (a.ndim - 2))
        return scale.to(a).view(each) * a + shift.to(a).view(each)

    def _draw(self, samples: int, units: int) -> tuple[Tensor, Tensor]:
        """Return m and s of this step, each (samples, units), drawn on the CPU."""
        random = torch.Generator().manual_seed((self.seed * _STRIDE + int(self.calls)) % 2**63)
        mu = torch.rand(units, generator=random) - 0.5
        sigma = 1 + 0.25 * torch.rand(units, generator=random)
        shift = mu + 0.2 * (torch.rand(samples, units, generator=random) - 0.5)
        scale = sigma + 0.1 * torch.randn(samples, units, generator=random)
        return shift, scale

    def extra_repr(self) -> str:
        """Return the seed, for ``repr``."""
        return f"seed={self.seed}"
