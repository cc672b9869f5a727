"""anynorm: choose, use and understand normalization in neural networks.

Every normalizer is one formula, h = φ(γ · (x − μ) / σ + β); see :mod:`anynorm.spec`.  Without
PyTorch, only the formula, its catalogue and the NumPy reference are available.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from anynorm import reference
from anynorm.catalogue import catalogue
from anynorm.errors import AnynormError
from anynorm.spec import Spec

_HAS_TORCH = find_spec("torch") is not None
if TYPE_CHECKING or _HAS_TORCH:
    from anynorm import functional, gpu, nn
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
        DynamicTanh,
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
if TYPE_CHECKING:
    from anynorm import surgery
    from anynorm.audit import Audit, audit
    from anynorm.doctor import Diagnosis, doctor
    from anynorm.study import Study, study
    from anynorm.surgery.center import center
    from anynorm.surgery.convert import convert
    from anynorm.surgery.fold import fold
    from anynorm.surgery.freeze import freeze
    from anynorm.surgery.fuse import fuse
    from anynorm.surgery.parameter_groups import parameter_groups
    from anynorm.surgery.prune import prune
    from anynorm.surgery.recalibrate import recalibrate
    from anynorm.surgery.recognize import recognize
    from anynorm.surgery.slim import slim
    from anynorm.surgery.weights.manifest import manifest

__version__ = "0.1.0"
__all__ = [
    "Activate",
    "AnynormError",
    "Audit",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CosineConv1d",
    "CosineConv2d",
    "CosineConv3d",
    "CosineLinear",
    "Diagnosis",
    "DynamicTanh",
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
    "audit",
    "catalogue",
    "center",
    "convert",
    "create",
    "doctor",
    "fold",
    "freeze",
    "functional",
    "fuse",
    "gpu",
    "info",
    "manifest",
    "nn",
    "normalized",
    "parameter_groups",
    "prune",
    "recalibrate",
    "recognize",
    "reference",
    "slim",
    "study",
    "surgery",
    "tune_allocator",
]

# Parts that need more packages or time than the layers are imported at their first use.
_LATE = {
    "Audit": ("anynorm.audit", "Audit"),
    "audit": ("anynorm.audit", "audit"),
    "Diagnosis": ("anynorm.doctor", "Diagnosis"),
    "Study": ("anynorm.study.api", "Study"),
    "doctor": ("anynorm.doctor", "doctor"),
    "study": ("anynorm.study.api", "study"),
    "surgery": ("anynorm.surgery", ""),
}
_VERBS = (
    "center",
    "convert",
    "fold",
    "freeze",
    "fuse",
    "manifest",
    "parameter_groups",
    "prune",
    "recalibrate",
    "recognize",
    "slim",
)
_LATE.update({verb: ("anynorm.surgery", verb) for verb in _VERBS})


def __getattr__(name: str) -> Any:
    """Import the study, the doctor, the audit and the surgery at their first use."""
    if name in __all__ and not _HAS_TORCH:
        raise ModuleNotFoundError(
            f"anynorm.{name} needs PyTorch, which is not installed; anynorm.reference, "
            "anynorm.catalogue and anynorm.Spec do without. Install it: pip install torch."
        )
    if name not in _LATE:
        raise AttributeError(f"module 'anynorm' has no attribute '{name}'")
    module, attribute = _LATE[name]
    found = import_module(module)
    return getattr(found, attribute) if attribute else found
