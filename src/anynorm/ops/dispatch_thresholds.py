"""From how many values on our kernels are faster than torch's own operators.

``python -m benchmarks.crossover`` measures the table of the CPU.  That of GPUs is not measured yet:
it is set by the time from Python to the device, in which a launch of ours costs several of torch's
and which only large inputs hide.  Where φ or a residual is fused the rivals
are several operators of torch, which touch the values several times.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["GPU_SMALLEST", "GPU_TABLE", "SMALLEST", "TABLE", "Crossover", "layout", "pays"]


class Crossover(NamedTuple):
    """The least number of values that our kernels take, without and with a fused step.

    `run`: how many that share statistics must lie one behind the other, as shorter runs cost more
    than their values.
    """

    plain: int
    fused: int = 1
    run: int = 1


# By normalizer and layout of the input: "rows" for two axes and for statistics over the last ones,
# otherwise "channels first" or "channels last".  2^62 stands for never.
TABLE: dict[tuple[str, str], Crossover] = {
    ("batch", "rows"): Crossover(1 << 19, 1 << 17),
    ("batch", "channels first"): Crossover(1 << 17, 1 << 16),
    ("batch", "channels last"): Crossover(1 << 19, 1 << 18),
    ("instance", "channels first"): Crossover(1 << 16, 1 << 15, 64),
    ("instance", "channels last"): Crossover(1 << 14, 1 << 12),
    ("group", "rows"): Crossover(1 << 62, 1 << 62),
    ("group", "channels first"): Crossover(1 << 22, 1 << 20, 128),
    ("group", "channels last"): Crossover(1 << 22, 1 << 16),
    ("layer", "rows"): Crossover(1 << 22, 1 << 19, 128),
    ("rms", "rows"): Crossover(1 << 20, 1 << 18, 64),
}


GPU_TABLE: dict[tuple[str, str], Crossover] = {
    ("batch", "rows"): Crossover(1 << 24, 1 << 22),
    ("batch", "channels first"): Crossover(1 << 24, 1 << 22),
    ("batch", "channels last"): Crossover(1 << 24, 1 << 22),
    ("instance", "channels first"): Crossover(1 << 24, 1 << 22),
    ("instance", "channels last"): Crossover(1 << 22, 1 << 21),
    ("group", "rows"): Crossover(1 << 62, 1 << 62),
    ("group", "channels first"): Crossover(1 << 24, 1 << 22),
    ("group", "channels last"): Crossover(1 << 22, 1 << 21),
    ("layer", "rows"): Crossover(1 << 24, 1 << 22, 128),
    ("rms", "rows"): Crossover(1 << 24, 1 << 22, 64),
}


def _smallest(table: dict[tuple[str, str], Crossover]) -> dict[str, Crossover]:
    rows: dict[str, list[Crossover]] = {}
    for (normalizer, _), row in table.items():
        rows.setdefault(normalizer, []).append(row)
    return {name: Crossover(*map(min, zip(*found, strict=True))) for name, found in rows.items()}


# By normalizer: below these no layout need be looked at.
SMALLEST, GPU_SMALLEST = _smallest(TABLE), _smallest(GPU_TABLE)


def layout(x: Tensor) -> str:
    """Return how an input (N, C, *) lies in memory, as the table calls it."""
    if x.dim() == 2:
        return "rows"
    return "channels last" if x.stride(1) == 1 else "channels first"


def pays(normalizer: str, x: Tensor, last: int | None, fused: bool) -> bool:
    """Whether our kernels are the faster ones for x, whose `last` values share statistics.

    None where those of its channels do.
    """
    lies = layout(x) if last is None else "rows"
    table = TABLE if x.is_cpu else GPU_TABLE
    row = table.get((normalizer, lies))  # none for instances of one value: torch has the message
    if row is None or x.numel() < (row.fused if fused else row.plain):
        return False
    if last is None:  # how many values of a channel lie one behind the other
        last = x.numel() // (x.shape[0] * x.shape[1]) if lies == "channels first" else 1
    return last >= row.run
