"""``anynorm catalogue`` and ``anynorm info``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from anynorm.catalogue import Entry, catalogue
from anynorm.cli.status import DONE
from anynorm.info import info
from anynorm.spec import SCALES, Spec

__all__ = ["add"]

_WIDE = ("name", "pattern", "statistic", "state", "invariant to", "torch twin", "paper")
_NARROW = ("name", "pattern", "statistic", "paper")
_WIDTH = 100


def add(commands: Any) -> None:
    """Add the commands to the parser's."""
    listing = commands.add_parser("catalogue", help="list every normalizer")
    listing.set_defaults(call=_catalogue)
    surroundings = commands.add_parser("info", help="show versions, machine, kernels and allocator")
    surroundings.set_defaults(call=_info)


def _catalogue() -> int:
    from rich.markup import escape
    from rich.table import Table

    from anynorm.report.console import console

    output = console()
    wide = output.width >= _WIDTH
    headings = list(_WIDE if wide else _NARROW)
    frame: dict[str, Any] = {} if wide else {"box": None, "padding": (0, 2, 0, 0)}
    table = Table(title="anynorm catalogue", show_lines=wide, **frame)
    for heading in headings:
        table.add_column(heading, no_wrap=heading in ("name", "pattern"))
    for entry in catalogue.values():
        row = dict(zip(_WIDE, _row(entry), strict=True))
        table.add_row(*(escape(row[heading]) for heading in headings))
    output.print(table)
    if not wide:
        left_out = ", ".join(heading for heading in _WIDE if heading not in headings)
        print(f"At {_WIDTH} columns or more (COLUMNS=160), also: {left_out}.")
    return DONE


def _row(entry: Entry) -> Sequence[str]:
    spec = entry.spec
    invariances = spec.invariances._asdict()
    return (
        entry.name,
        str(spec.pattern) + ("" if spec.on == "input" else f" on {spec.on}"),
        _statistic(spec),
        entry.state or "none",
        ", ".join(name.replace("_", " ") for name, holds in invariances.items() if holds) or "none",
        entry.twin or "none",
        entry.paper,
    )


def _statistic(spec: Spec) -> str:
    """μ and σ, and what is not as usual of γ, of ε, of the rounding and of the source."""
    scales = [name for name, scale in SCALES.items() if scale == spec.scale]
    taken = " and ".join([*(["mean"] if spec.center else []), *scales[:1]]) or "none"
    unusual = {
        "no γ": spec.learned.gain == "none",
        "one γ": spec.learned.gain == "scalar",
        f"γ = {spec.learned.offset:g} + w": spec.learned.offset != 0,
        "ε added to σ": spec.dialect.eps == "outside",
        "at least ε": spec.dialect.eps == "max",
        "rounded before γ": spec.dialect.cast == "before",
        "corrected by running ones": spec.source != "batch",
    }
    return "; ".join([taken, *(words for words, holds in unusual.items() if holds)])


def _info() -> int:
    from rich.markup import escape
    from rich.table import Table

    from anynorm.report.console import console

    table = Table(title="anynorm info", show_header=False)
    table.add_column(no_wrap=True)
    for name, value in asdict(info()).items():
        table.add_row(name.replace("_", " "), escape(value))
    console().print(table)
    return DONE
