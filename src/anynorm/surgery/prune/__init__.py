"""Pruning by γ: what to cut, the cut itself, and what cut channels gave to the next layer."""

from anynorm.surgery.prune.plan import Plan
from anynorm.surgery.prune.verb import Pruned, prune

__all__ = ["Plan", "Pruned", "prune"]
