"""The bytes that a step must move, which are the measure of its bandwidth.

Every pass reads each of its inputs once and writes each of its outputs once: forward, x and the
residual to y; backward, x and dy to dx and the residual's gradient.  What is small beside them does
not count (γ, β, statistics, φ's mask as bits), and neither does a second reading for statistics.
"""

from __future__ import annotations

from anynorm.bench.cases import Case

__all__ = ["COPY", "moved"]

COPY = 2  # a copy reads and writes each value once


def moved(case: Case) -> int:
    """Return how many tensors of the input's size a case moves.

    >>> moved(Case("layer", "contiguous", (4, 8), "fp32", "plain", "forward"))
    2
    >>> moved(Case("batch", "contiguous", (4, 8, 2, 2), "fp32", "add+relu", "both"))
    7
    """
    forward = 2 + case.adds
    return forward + (3 + case.adds if case.phase == "both" else 0)
