"""From how many values on our CPU kernels are faster than torch's own operators.

``python -m benchmarks.crossover`` measures the table.  Where φ or a residual is fused the rivals
are several operators of torch, which touch the values several times.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["SMALLEST", "TABLE", "Crossover", "layout", "pays"]


class Crossover(NamedTuple):
    """The least number of values that our kernels take, without and with a fused step."""

    plain: int
    fused: int = 1


# By normalizer and layout of the input: "rows" for two axes and for statistics over the last ones,
# otherwise "channels first" or "channels last".  2^62 stands for never.
TABLE: dict[tuple[str, str], Crossover] = {
    ("batch", "rows"): Crossover(1 << 19, 1 << 17),
    ("batch", "channels first"): Crossover(1 << 18, 1 << 16),
    ("batch", "channels last"): Crossover(1 << 19, 1 << 17),
    ("instance", "channels first"): Crossover(1 << 16),
    ("instance", "channels last"): Crossover(1 << 14, 1 << 11),
    ("group", "rows"): Crossover(1 << 62, 1 << 62),
    ("group", "channels first"): Crossover(1 << 22, 1 << 19),
    ("group", "channels last"): Crossover(1 << 22, 1 << 16),
    ("layer", "rows"): Crossover(1 << 22, 1 << 19),
    ("rms", "rows"): Crossover(1 << 19, 1 << 17),
}

# By normalizer: below this no layout need be looked at.
SMALLEST = {
    normalizer: min(row.plain for (name, _), row in TABLE.items() if name == normalizer)
    for normalizer, _ in TABLE
}


def layout(x: Tensor) -> str:
    """Return how an input (N, C, *) lies in memory, as the table calls it."""
    if x.dim() == 2:
        return "rows"
    return "channels last" if x.stride(1) == 1 else "channels first"


def pays(normalizer: str, layout: str, values: int, fused: bool) -> bool:
    """Whether our kernels are the faster ones for an input of so many values."""
    row = TABLE.get((normalizer, layout))  # none for instances of one value: torch has the message
    return row is not None and values >= (row.fused if fused else row.plain)
