"""The study: train a model with each normalizer, measure why they differ, recommend one.

The package can be called: ``anynorm.study("mlp-relu")`` is `anynorm.study.api.study`.
"""

from __future__ import annotations

from anynorm.packages import make_callable
from anynorm.study.api import Study, study

__all__ = ["Study", "study"]

make_callable(__name__, study)
