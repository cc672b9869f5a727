"""Bracket patterns: the names of an input's axes; those in brackets share one μ and σ.

``[n] c [...]`` reads: samples, channels, any further axes; one μ and σ for each channel, taken over
samples and positions.  Parentheses split an axis, as in einops: ``n (g [c]) [...]`` takes the
channels in g groups.
"""

from anynorm.pattern.axes import AXES, Part
from anynorm.pattern.pattern import Pattern
from anynorm.pattern.resolved import ResolvedPattern

__all__ = ["AXES", "Part", "Pattern", "ResolvedPattern"]
