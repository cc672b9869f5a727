"""anynorm: choose, use and understand normalization in neural networks.

Every normalizer is one formula, h = φ(γ · (x − μ) / σ + β); see :mod:`anynorm.spec`.
"""

from typing import TYPE_CHECKING, Any

from anynorm import functional, nn, reference
from anynorm.catalogue import catalogue
from anynorm.errors import AnynormError
from anynorm.info import Info, info
from anynorm.kernels import tune_allocator
from anynorm.nn import (
    Activate,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    CosineConv1d,
    CosineConv2d,
    CosineConv3d,
    CosineLinear,
    FrozenBatchNorm,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LazyBatchNorm1d,
    LazyBatchNorm2d,
    LazyBatchNorm3d,
    Norm,
    NormalizedWeight,
    RMSNorm,
    SyncBatchNorm,
    create,
    normalized,
)
from anynorm.spec import Spec

if TYPE_CHECKING:
    from anynorm.study import Study, study

__version__ = "0.1.0"
__all__ = [
    "Activate",
    "AnynormError",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CosineConv1d",
    "CosineConv2d",
    "CosineConv3d",
    "CosineLinear",
    "FrozenBatchNorm",
    "GroupNorm",
    "Info",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "Norm",
    "NormalizedWeight",
    "RMSNorm",
    "Spec",
    "Study",
    "SyncBatchNorm",
    "__version__",
    "catalogue",
    "create",
    "functional",
    "info",
    "nn",
    "normalized",
    "reference",
    "study",
    "tune_allocator",
]


def __getattr__(name: str) -> Any:
    """Import the study at its first use: it needs packages that the layers do not."""
    if name in ("Study", "study"):
        from anynorm.study import api

        return getattr(api, name)
    raise AttributeError(f"module 'anynorm' has no attribute '{name}'")
