"""``anynorm audit``: what is wrong with normalization in a file that is about to be shipped."""

from __future__ import annotations

from typing import Any

from anynorm.cli.outcome import add_outcome, check_outcome, write_outcome

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
    add_outcome(parser, "audit")


def _audit(program: str, html: str | None, json: str | None, **options: Any) -> int:
    from anynorm.audit import audit

    check_outcome(html, json)
    found = audit(program, **options)
    write_outcome(found, html, json)
    return found.status
