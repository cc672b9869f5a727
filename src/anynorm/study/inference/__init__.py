"""Statistical comparisons of normalizers over seeds and held-out items."""

from anynorm.study.inference.compare import (
    ANSWERS,
    LEVEL,
    Comparison,
    against_control,
    among_best,
)
from anynorm.study.inference.sample import Sample

__all__ = ["ANSWERS", "LEVEL", "Comparison", "Sample", "against_control", "among_best"]
