"""``anynorm audit``: what is wrong with normalization in a file that is about to be shipped."""

from __future__ import annotations

from typing import Any

from anynorm.cli.written import say_written
from anynorm.report.files import check_target, write_json

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "audit",
        help="say what is wrong with normalization in an exported file",
        description="Reads an ONNX model or an exported program without running it. Exit status "
        "0: healthy; 1: there are errors or warnings; 2: a file could not be read; 3: a part was "
        "not examined. Defaults are in parentheses.",
        epilog="Example: anynorm audit model.onnx --checkpoint model.safetensors",
    )
    parser.set_defaults(call=_audit)
    add = parser.add_argument
    weights = "the weights that the file should have: safetensors, or a state dict of torch.save"
    key = "which state dict of the checkpoint to read, such as state_dict_ema (the usual one)"
    add("program", metavar="FILE", help="an ONNX model (.onnx) or an exported program (.pt2)")
    add("--checkpoint", metavar="FILE", help=f"{weights} (none)")
    add("--checkpoint-key", dest="key", metavar="NAME", help=key)
    add("--html", metavar="FILE", help="write the audit as a page (no)")
    add("--json", metavar="FILE", help="write the audit as plain values (no)")


def _audit(program: str, html: str | None, json: str | None, **options: Any) -> int:
    from anynorm.audit import audit

    for path, kind in ((html, "page"), (json, "JSON file")):
        if path is not None:
            check_target(path, kind)
    found = audit(program, **options)
    found.table()
    if html is not None:
        found.report(html)
    if json is not None:
        write_json(json, found.to_dict())
    say_written({"page": html, "JSON": json})
    return found.status
