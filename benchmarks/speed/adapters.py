"""Other people's GPU kernels as layers of x, with the parameters in the order γ, β.

Each is written to the interface of the package's source; where a package is missing its adapter
is not called.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from anynorm.bench.cases import DTYPES, Case
from anynorm.bench.layers import groups

__all__ = ["apex", "flash_attn", "liger", "quack"]

EPS = 1e-5


class Called(nn.Module):
    """A function of x, γ and β as a layer of so many features."""

    def __init__(self, function: Callable[..., Tensor], features: int, bias: bool) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Call the function."""
        return self.function(x, self.weight, self.bias)


def _eps(case: Case) -> float:
    """torch.nn.RMSNorm takes the distance from 1 to the next number of the input's type."""
    return torch.finfo(DTYPES[case.dtype]).eps if case.normalizer == "rms" else EPS


def liger(case: Case) -> nn.Module:
    """Liger-Kernel's layer (Hsu et al. 2024, arXiv:2410.10989)."""
    from liger_kernel.transformers.group_norm import LigerGroupNorm
    from liger_kernel.transformers.layer_norm import LigerLayerNorm
    from liger_kernel.transformers.rms_norm import LigerRMSNorm

    width, eps = case.shape[1], _eps(case)
    build: dict[str, Callable[[], nn.Module]] = {
        "layer": lambda: LigerLayerNorm(width, eps=eps, bias=True),
        # In place, it would overwrite the cotangent, which the next call needs.
        "rms": lambda: LigerRMSNorm(width, eps=eps, in_place=False),
        "group": lambda: LigerGroupNorm(width, groups(width), eps=eps, bias=True),
    }
    return build[case.normalizer]().to(DTYPES[case.dtype])


def apex(case: Case) -> nn.Module:
    """apex's fused layer norm and RMS norm."""
    from apex.normalization import FusedLayerNorm, FusedRMSNorm

    build = {"layer": FusedLayerNorm, "rms": FusedRMSNorm}[case.normalizer]
    layer: nn.Module = build(case.shape[1], eps=_eps(case))
    return layer.to(DTYPES[case.dtype])


def quack(case: Case) -> nn.Module:
    """quack's RMS norm, of kernels in CuTe's language."""
    from quack.rmsnorm import rmsnorm

    def call(x: Tensor, weight: Tensor, _: None) -> Tensor:
        y: Tensor = rmsnorm(x, weight, eps=_eps(case))
        return y

    return Called(call, case.shape[1], bias=False).to(DTYPES[case.dtype])


def flash_attn(case: Case) -> nn.Module:
    """The Triton kernels that come with FlashAttention (Dao 2023, arXiv:2307.08691)."""
    from flash_attn.ops.triton.layer_norm import layer_norm_fn, rms_norm_fn

    function = {"layer": layer_norm_fn, "rms": rms_norm_fn}[case.normalizer]

    def call(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = function(x, weight, bias, eps=_eps(case))
        return y

    layer = Called(call, case.shape[1], bias=case.normalizer == "layer")
    return layer.to(DTYPES[case.dtype])
