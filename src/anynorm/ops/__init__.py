"""What computes a call: `run` chooses a backend for a `NormCall`; beneath are the operators.

`standardize` is the formula over any axes, `normalize` that for given statistics, `pooled` that for
the statistics of the values that count, on one process or several (`ranks`), `whitening` the
covariance roots and `running` the update of running statistics.
"""

from anynorm.ops import formula, pooled, ranks, whitening
from anynorm.ops.backends import torch_operators
from anynorm.ops.backends.eager import statistic_of
from anynorm.ops.call import NO_SIZES, NormCall
from anynorm.ops.dispatch import run
from anynorm.ops.formula import moments
from anynorm.ops.measured import measure
from anynorm.ops.normalize import normalize
from anynorm.ops.running import Running
from anynorm.ops.standardize import standardize
from anynorm.ops.values import PLAIN, Affine, After, Statistic, View

__all__ = [
    "NO_SIZES",
    "PLAIN",
    "Affine",
    "After",
    "NormCall",
    "Running",
    "Statistic",
    "View",
    "formula",
    "measure",
    "moments",
    "normalize",
    "pooled",
    "ranks",
    "run",
    "standardize",
    "statistic_of",
    "torch_operators",
    "whitening",
]
