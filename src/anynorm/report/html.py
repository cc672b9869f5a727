"""The report as one HTML file that opens offline: the verdict, then a figure for each claim."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from anynorm.report.files import write_whole
from anynorm.report.sections import contents, header, notice, study
from anynorm.report.text import markup

__all__ = ["page", "write"]

Evidence = Mapping[str, Any]


def write(evidence: Evidence, path: str | os.PathLike[str]) -> None:
    """Write `evidence`, as `anynorm.study.evidence.build` returns it, as a page at `path`.

    The file is complete or absent at any moment. It needs no network, and its content security
    policy lets the browser make no request and run no script but the page's own.
    """
    write_whole(path, page(evidence))


def page(evidence: Evidence) -> str:
    """Return the report as the text of one HTML page."""
    from plotly.offline import get_plotlyjs

    figures: dict[str, Any] = {}
    studies = "".join(study(evidence, index, figures) for index in range(len(evidence["studies"])))
    scripts = {"plotly": str(get_plotlyjs()), "script": _asset("page.js")}
    return Template(_asset("page.html")).substitute(
        scripts,
        policy=_policy(scripts.values()),
        style=_asset("page.css"),
        title=markup(evidence["title"]),
        header=header(evidence),
        notice=notice(evidence),
        contents=contents(evidence),
        studies=studies,
        figures=embedded(figures),
    )


def embedded(data: object) -> str:
    """Return `data` as JSON that no HTML parser can take for the end of its script element.

    >>> embedded("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(scripts: Any) -> str:
    """Return a content security policy that allows the given inline scripts and nothing else."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
