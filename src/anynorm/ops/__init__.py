"""The operators, and the only place where a backend is chosen (by torch's own dispatcher).

`native` holds the normalizers that torch has an operator for, `standardize` the formula over any
axes, `normalize` that for given statistics, `pooled` that for the statistics of the values that
count, on one process or several (`ranks`), `whitening` the covariance roots and `running` the
update of running statistics.
"""

from anynorm.ops import formula, native, pooled, ranks, whitening
from anynorm.ops.formula import moments
from anynorm.ops.measured import measure
from anynorm.ops.normalize import normalize
from anynorm.ops.running import Running
from anynorm.ops.standardize import standardize
from anynorm.ops.values import PLAIN, Affine, After, Statistic, View

__all__ = [
    "PLAIN",
    "Affine",
    "After",
    "Running",
    "Statistic",
    "View",
    "formula",
    "measure",
    "moments",
    "native",
    "normalize",
    "pooled",
    "ranks",
    "standardize",
    "whitening",
]
