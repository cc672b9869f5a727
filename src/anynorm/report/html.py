"""The report as one HTML file that opens offline: the verdict, then a figure for each claim."""

from __future__ import annotations

import os
from collections.abc import Mapping
from string import Template
from typing import Any

from anynorm.report.files import write_whole
from anynorm.report.frame import asset, embedded, framed
from anynorm.report.sections import contents, header, notice, study

__all__ = ["embedded", "page", "write"]

Evidence = Mapping[str, Any]


def write(evidence: Evidence, path: str | os.PathLike[str]) -> None:
    """Write `evidence`, as `anynorm.study.evidence.build` returns it, as a page at `path`.

    The file is always complete or absent. It needs no network, and its content security
    policy lets the browser make no request and run no script but the page's own.
    """
    write_whole(path, page(evidence))


def page(evidence: Evidence) -> str:
    """Return the report as the text of one HTML page."""
    from plotly.offline import get_plotlyjs

    figures: dict[str, Any] = {}
    studies = "".join(study(evidence, index, figures) for index in range(len(evidence["studies"])))
    main = Template(asset("page.html")).substitute(
        header=header(evidence), notice=notice(evidence), studies=studies
    )
    return framed(
        kind="study",
        title=evidence["title"],
        contents=contents(evidence),
        main=main,
        scripts=(str(get_plotlyjs()), asset("page.js")),
        data=embedded(figures),
    )
