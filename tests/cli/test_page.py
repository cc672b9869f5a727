"""The page of the command line names every command and option, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anynorm import cli

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")
COMMANDS = ["doctor", "recalibrate", "fold", "freeze", "convert", "prune"]
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## "))
COMMON = re.findall(r"^\| `(--[\w-]+)", SECTIONS["Common options"], re.MULTILINE)


def options_of(command: str) -> set[str]:
    """The options that the parser knows."""
    _, commands = cli._parser("anynorm")
    every = commands[command]._option_string_actions
    return {name for name in every if name.startswith("--") and not name.startswith("--no-")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_on_the_page(command: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `anynorm {command}`"))
    named = set(re.findall(r"`(--[\w-]+)`", row))
    assert options_of(command) - {"--help"} == named | set(COMMON)


def test_the_benchmark_has_a_table_of_its_own() -> None:
    rows = re.findall(r"^\| (`--.*?) \|", SECTIONS["The benchmark"], re.MULTILINE)
    named = set(re.findall(r"--[\w-]+", " ".join(rows)))
    assert options_of("bench") - {"--help"} == named
