"""The frame of every page: one HTML file without requests, which runs only its own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from string import Template

from anynorm.report.text import markup

__all__ = ["asset", "embedded", "framed"]

NONE = "'none'"


def framed(
    *, kind: str, title: str, contents: str, main: str, scripts: Sequence[str] = (), data: str = ""
) -> str:
    """Return a page with the parts given as HTML; `title` is text, `data` JSON for the scripts.

    >>> "script-src 'none'" in framed(kind="doctor", title="<b>", contents="", main="")
    True
    """
    held = f'<script type="application/json" id="figures">{data}</script>\n' if data else ""
    return Template(asset("frame.html")).substitute(
        policy=_policy(scripts),
        style=asset("page.css"),
        title=markup(title),
        kind=kind,
        contents=contents,
        main=main,
        scripts=held + "\n".join(f"<script>{script}</script>" for script in scripts),
    )


def asset(name: str) -> str:
    """Return the text of a file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def embedded(data: object) -> str:
    """Return `data` as JSON that cannot end its script element in an HTML parser.

    >>> embedded("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy that allows the given inline scripts and nothing else."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    return (
        f"default-src 'none'; script-src {' '.join(allowed or [NONE])}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
