"""The verdict of a study: causes first, then comparisons, then a recommendation in words."""

from anynorm.study.verdict.decide import decide

__all__ = ["decide"]
