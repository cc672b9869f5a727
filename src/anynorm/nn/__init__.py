"""Layers: `Norm` for any pattern, the layers of torch.nn, weight normalizers and `DynamicTanh`."""

from anynorm.nn.dynamic_tanh import DynamicTanh
from anynorm.nn.frozen import FrozenBatchNorm
from anynorm.nn.norm import Norm, create
from anynorm.nn.torch_layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LazyBatchNorm1d,
    LazyBatchNorm2d,
    LazyBatchNorm3d,
    RMSNorm,
    SyncBatchNorm,
)
from anynorm.nn.weights import (
    Activate,
    CosineConv1d,
    CosineConv2d,
    CosineConv3d,
    CosineLinear,
    NormalizedWeight,
    normalized,
)

__all__ = [
    "Activate",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CosineConv1d",
    "CosineConv2d",
    "CosineConv3d",
    "CosineLinear",
    "DynamicTanh",
    "FrozenBatchNorm",
    "GroupNorm",
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
    "SyncBatchNorm",
    "create",
    "normalized",
]
