"""The command line as a whole: errors, warnings, exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anynorm import cli
from anynorm.errors import AnynormError


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command that raises; returns the exit status."""

    def info() -> Any:
        raise error

    monkeypatch.setattr("anynorm.cli.listings.info", info)
    return cli.main(["info"])


def test_our_errors_are_one_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status = cli.main(["study", "--model", "mlp-rulu", "--store", str(tmp_path)])
    shown = capsys.readouterr().err
    assert status == 2
    assert shown.startswith("anynorm: ")
    assert 'Did you mean "mlp-relu"' in shown
    assert "Traceback" not in shown


def test_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "anynorm", "study", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "package.module:factory" in done.stdout


def test_only_what_a_command_needs_is_imported() -> None:
    heavy = ["anynorm.doctor", "rich.table", "pandas", "plotly", "sklearn"]
    code = f"import sys, anynorm.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_what_breaks_is_no_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(RuntimeError("broken"), monkeypatch) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("anynorm: Traceback")
    assert "RuntimeError: broken" in shown


def test_interruption(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == "anynorm: interrupted.\n"


def test_names_in_messages_cannot_change_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(AnynormError("layer \x1b[31m[bold]x:\nsecond line"), monkeypatch) == 2
    assert capsys.readouterr().err == "anynorm: layer \\x1b[31m[bold]x:\nsecond line\n"
