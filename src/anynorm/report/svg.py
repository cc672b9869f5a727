"""The SVG elements that pictures need; colours follow the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

__all__ = ["circle", "diamond", "document", "element", "line", "rect", "text"]

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: #1c2733 }
.title { font-size: 16px; font-weight: 600 }
.head { font-weight: 600 }
.muted { fill: #5b6875 }
.page { fill: #ffffff }
.grid { stroke: #dfe5ea }
.mark { stroke: #5b6875; stroke-width: 1.5 }
.warn { fill: #d1495b; opacity: 0.08 }
.good { fill: #2274a5; fill-opacity: 0.65; stroke: #ffffff }
.bad { fill: #d1495b; stroke: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .muted { fill: #9aa7b4 }
  .page { fill: #0d1117 }
  .grid { stroke: #2a323c }
  .mark { stroke: #9aa7b4 }
  .warn { fill: #ff7b89; opacity: 0.12 }
  .good { fill: #58a6ff; stroke: #0d1117 }
  .bad { fill: #ff7b89; stroke: #0d1117 }
}
"""


def document(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    """Return a whole picture; `label` is its text for screen readers."""
    page = rect(0, 0, width, height, "page")
    about = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {about} role="img" '
        f"aria-label={quoteattr(label)}>\n<style>{STYLE}</style>\n"
        + "\n".join([page, *parts])
        + "\n</svg>\n"
    )


def element(name: str, style: str, inside: str = "", **attributes: float | str) -> str:
    """Return one element of the class `style`; underscores of attributes stand for hyphens."""
    shown = "".join(
        f' {key.replace("_", "-")}="{value if isinstance(value, str) else f"{value:.1f}"}"'
        for key, value in attributes.items()
    )
    return f'<{name} class="{style}"{shown}>{inside}</{name}>'


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    """Words with the given end of them at (x, y)."""
    return element("text", style, escape(words), x=x, y=y, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A line from one point to another."""
    return element("line", style, x1=x1, y1=y1, x2=x2, y2=y2)


def rect(x: float, y: float, width: float, height: float, style: str) -> str:
    """A rectangle by its upper left corner."""
    return element("rect", style, x=x, y=y, width=width, height=height)


def circle(x: float, y: float, radius: float, style: str, title: str = "") -> str:
    """A dot, with words for the pointer that rests on it."""
    return element("circle", style, _title(title), cx=x, cy=y, r=radius)


def diamond(x: float, y: float, radius: float, style: str, title: str = "") -> str:
    """A square on its corner, as :func:`circle`."""
    corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return element("polygon", style, _title(title), points=points)


def _title(words: str) -> str:
    """A tooltip."""
    return f"<title>{escape(words)}</title>" if words else ""
