"""Figures as plotly's plain JSON, drawn in the browser: curves, dots, heat maps, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.figures.dots import dots
from anynorm.report.figures.heat import heat
from anynorm.report.figures.intervals import intervals
from anynorm.report.figures.series import series
from anynorm.report.text import rounded

__all__ = ["draw"]

KINDS = {"series": series, "dots": dots, "heat": heat, "intervals": intervals}


def draw(figure: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Return plotly's ``data`` and ``layout``; `labels` determines the colour of each name.

    Colours are references such as ``"@3"`` (third normalizer) or ``"@ink"``: the page replaces
    them by the palette of its light or dark theme.
    """
    # Screens do not show more digits, and fewer digits halve the size of the page's data.
    drawn: dict[str, Any] = rounded(KINDS[figure["kind"]](figure, labels), digits=5)
    return drawn
