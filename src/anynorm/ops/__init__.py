"""The operators, and the only place where a backend is chosen (by torch's own dispatcher).

`native` holds the normalizers that torch has an operator for, `standardize` the formula over any
axes, `whitening` the covariance roots and `running` the update of running statistics.
"""

from anynorm.ops import formula, native, whitening
from anynorm.ops.formula import Statistic, moments
from anynorm.ops.running import Running
from anynorm.ops.standardize import standardize

__all__ = ["Running", "Statistic", "formula", "moments", "native", "standardize", "whitening"]
