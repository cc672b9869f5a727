"""What computes a call: `run` chooses a backend for a `NormCall`; beneath are the operators.

`standardize` is the formula over any axes, `normalize` that for given statistics,
`merged_statistics` that for the statistics of the values that count, on one process or several
(`process_groups`), `whitening` the covariance roots and `running` the update of running statistics.
"""

from anynorm.ops import dialects, formula, merged_statistics, process_groups, whitening
from anynorm.ops.backends import torch_operators
from anynorm.ops.backends.affine import gain
from anynorm.ops.backends.eager import statistic_of
from anynorm.ops.call import NO_SIZES, NormCall
from anynorm.ops.dispatch import run
from anynorm.ops.moments import measure
from anynorm.ops.normalize import normalize
from anynorm.ops.running import Running
from anynorm.ops.standardize import standardize
from anynorm.ops.types import PLAIN, Affine, Epilogue, Statistic, View

__all__ = [
    "NO_SIZES",
    "PLAIN",
    "Affine",
    "Epilogue",
    "NormCall",
    "Running",
    "Statistic",
    "View",
    "dialects",
    "formula",
    "gain",
    "measure",
    "merged_statistics",
    "normalize",
    "process_groups",
    "run",
    "standardize",
    "statistic_of",
    "torch_operators",
    "whitening",
]
