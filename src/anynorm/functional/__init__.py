"""The normalizers as functions: torch.nn.functional's signatures, and `normalize` for any Spec.

Each function checks its input, resolves the pattern and calls one operator.
"""

from anynorm.functional.activation import (
    Activation,
    activate,
    activation_name,
    check_activation,
)
from anynorm.functional.arguments import check_arguments, explain, need_tensor
from anynorm.functional.general import normalize, normalize_weight, scale_of
from anynorm.functional.named import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)
from anynorm.functional.synced import check_synced
from anynorm.ops import Running
from anynorm.ops.backends.masked import whole_mask
from anynorm.ops.checks import check_groups, check_residual
from anynorm.ops.process_groups import Sync, check_sync

__all__ = [
    "Activation",
    "Running",
    "Sync",
    "activate",
    "activation_name",
    "batch_norm",
    "check_activation",
    "check_arguments",
    "check_groups",
    "check_residual",
    "check_sync",
    "check_synced",
    "explain",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "need_tensor",
    "normalize",
    "normalize_weight",
    "rms_norm",
    "scale_of",
    "whole_mask",
]
