"""The picture of |γ|: a histogram over channels, with the natural gap between small and large."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from anynorm.report import svg
from anynorm.report.text import visible

__all__ = ["FLOOR", "picture"]

# Values below this share of the largest |γ| count, and are drawn, as zero.
FLOOR = 1e-3
_WIDTH, _LEFT, _TOP, _HEIGHT = 720.0, 56.0, 86.0, 220.0
_BINS = 48


def picture(scales: Mapping[str, Sequence[float]], gap: tuple[float, float] | None) -> str:
    """Return an SVG: the histogram of all |γ| on a logarithmic axis, then a strip for each layer.

    `scales` holds the |γ| of each layer by its name, `gap` the values on both sides of the gap.
    """
    values = [value for layer in scales.values() for value in layer]
    axis = _Axis(max(values, default=0.0) or 1.0)
    below = sum(value < gap[1] for value in values) if gap else 0
    bottom = _TOP + _HEIGHT + 56
    height = bottom + 22 * len(scales) + 24
    title = f"{len(values)} channels by |γ|"
    words = f"{below} ({below / len(values):.0%}) lie below the gap" if gap else "no natural gap"
    parts = [svg.text(_LEFT, 30, title, "title"), svg.text(_LEFT, 52, words, "muted")]
    parts += _band(axis, gap, bottom + 22 * len(scales))
    parts += [*_bars(values, axis, gap), *_ticks(axis)]
    for row, (name, layer) in enumerate(scales.items()):
        parts += _strip(name, layer, axis, gap, bottom + 22 * row)
    return svg.document(_WIDTH, height, f"{title}; {words}", parts)


class _Axis:
    """A logarithmic axis from the largest value down to the value that counts as zero."""

    def __init__(self, top: float) -> None:
        self.high, self.low = math.log10(top), math.log10(FLOOR * top)

    def share(self, value: float) -> float:
        """The position of a value between the ends, from 0 to 1."""
        power = math.log10(value) if value > 0 else self.low
        return min(1.0, max(0.0, (power - self.low) / (self.high - self.low)))

    def x(self, value: float) -> float:
        return _LEFT + self.share(value) * (_WIDTH - _LEFT - 24)


def _bars(values: Sequence[float], axis: _Axis, gap: tuple[float, float] | None) -> list[str]:
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int(axis.share(value) * _BINS))] += 1
    most, width = max(counts, default=0) or 1, (_WIDTH - _LEFT - 24) / _BINS
    limit = axis.x(gap[1]) if gap else 0.0
    found = [svg.text(_LEFT - 8, _TOP + 10, str(most), "muted", "end")]
    for number, count in enumerate(counts):
        x, tall = _LEFT + number * width, _HEIGHT * count / most
        style = "bad" if x + width / 2 < limit else "good"
        if count:
            found.append(svg.rect(x + 0.5, _TOP + _HEIGHT - tall, width - 1, tall, style))
    return found


def _band(axis: _Axis, gap: tuple[float, float] | None, bottom: float) -> list[str]:
    if gap is None:
        return []
    left, right = axis.x(gap[0]), axis.x(gap[1])
    return [svg.rect(left, _TOP - 12, max(right - left, 2.0), bottom - _TOP + 12, "warn")]


def _ticks(axis: _Axis) -> list[str]:
    base = _TOP + _HEIGHT
    found = [svg.line(_LEFT, base, _WIDTH - 24, base, "mark")]
    found.append(svg.text(_LEFT, base + 34, "≤ (as good as zero)", "muted"))
    for power in range(math.ceil(axis.low), math.floor(axis.high) + 1):
        x = axis.x(10.0**power)
        found += [svg.line(x, base, x, base + 5, "mark")]
        found += [svg.text(x, base + 18, f"{10.0**power:g}", "muted", "middle")]
    return [*found, svg.text(_WIDTH - 24, base + 34, "|γ|", "head", "end")]


def _strip(
    name: str, layer: Sequence[float], axis: _Axis, gap: tuple[float, float] | None, y: float
) -> list[str]:
    """Every channel of one layer as a dot."""
    found = [svg.line(_LEFT, y + 5, _WIDTH - 24, y + 5, "grid")]
    for value in layer:
        style = "bad" if gap and value < gap[1] else "good"
        found.append(svg.circle(axis.x(value), y + 5, 3.5, style, f"{visible(name)}: {value:.3g}"))
    return [*found, svg.text(_LEFT + 4, y - 2, visible(name), "muted")]
