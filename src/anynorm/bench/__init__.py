"""Speed: anynorm's layers beside torch.nn's, timed side by side on a processor or a GPU.

>>> from anynorm.bench import CASES, Budget, measure
>>> rms = [case for case in CASES if case.name == "rms/contiguous/256x128/fp32/plain/forward"]
>>> [set(row["ratio"]) for row in measure(rms, Budget(seconds=0.01))]
[{'eager'}]
"""

from __future__ import annotations

from anynorm.bench.cases import CASES, Case
from anynorm.bench.comparison import measure, resolve
from anynorm.bench.timing import Budget

__all__ = ["CASES", "Budget", "Case", "measure", "resolve"]
