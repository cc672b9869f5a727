"""Figures as plotly's plain JSON, drawn in the browser: curves, dots with ranges, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.figures.dots import dots
from anynorm.report.figures.heat import heat
from anynorm.report.figures.series import series

__all__ = ["draw"]

KINDS = {"series": series, "dots": dots, "heat": heat}


def draw(figure: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Return plotly's ``data`` and ``layout``; `labels` decides which colour each name has.

    Colours are references such as ``"@3"`` (third normalizer) or ``"@ink"``: the page replaces
    them by the palette of its light or dark theme.
    """
    drawn: dict[str, Any] = _rounded(KINDS[figure["kind"]](figure, labels))
    return drawn


def _rounded(value: Any) -> Any:
    """Keep five digits: no screen shows more, and they halve the page's data."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
