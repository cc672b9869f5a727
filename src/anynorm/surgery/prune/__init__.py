"""Pruning by γ: choose channels, cut them, and add their constants to the next layer."""

from anynorm.surgery.prune.plan import Plan
from anynorm.surgery.prune.verb import Pruned, prune

__all__ = ["Plan", "Pruned", "prune"]
