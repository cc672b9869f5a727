"""The command line as a whole: errors, warnings, exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import anynorm
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


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"anynorm {anynorm.__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stduy", "there is no command 'stduy'. Did you mean \"study\"?"),
        ("xyzzy", "there is no command 'xyzzy'. `anynorm --help` lists all commands."),
        ("study --sedes 3", "`anynorm study` has no option '--sedes'. Did you mean \"--seeds\"?"),
        ("doctor --modle=m:f", "has no option '--modle'. Did you mean \"--model\"?"),
        ("study extra", "unrecognized arguments: extra. `anynorm --help` lists all options."),
        ("study --seeds x", "`anynorm study`: argument --seeds: invalid int value: 'x'. "),
        ("study --norms", "`anynorm study`: argument --norms: expected at least one argument. "),
        ("fold --data digits", "the following arguments are required: --model. `anynorm fold"),
        ("study --model own.models.net", "Write your own factory after a colon: own.models:net."),
        ("bench --only (", "--only '(' is not a regular expression: "),
        ("--verison", "`anynorm` has no option '--verison'. Did you mean \"--version\"?"),
    ],
)
def test_what_is_mistyped_gets_the_nearest(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert "usage:" not in shown


def test_options_may_be_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["study", "--mod", "cnn", "--hel"])
    assert "--model" in capsys.readouterr().out


def test_help_shows_every_default() -> None:
    _, commands = cli._parser("anynorm")
    for name, parser in commands.items():
        groups = parser._mutually_exclusive_groups
        one_of = [option for group in groups for option in group._group_actions if group.required]
        for option in set(parser._actions) - set(one_of):
            if not (option.required or "--help" in option.option_strings):
                assert (option.help or "").endswith(")"), (name, option.dest)


def test_a_module_that_imports_what_is_not_installed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "lacks.py").write_text("import no_such_package\n")
    assert cli.main(["doctor", "--model", "lacks:net"]) == 2
    said = capsys.readouterr().err
    assert "'lacks' imports 'no_such_package', which is not installed" in said
    assert "lacks.py, line 1" in said
    assert "package.module" not in said


@pytest.mark.parametrize(
    "words",
    [
        "study --model nets:quits --data digits",
        "study --data nets:quits",
        "doctor --model nets:quits",
        "doctor --model nets:net --data nets:quits",
        "doctor --model nets:net --data nets:quits_later",
        "doctor --model nets:net --data nets:pairs --forward nets:quits_on",
        "doctor --model nets:net --data nets:pairs --loss nets:quits_on",
        "doctor --model nets:net --data nets:pairs --optimizer nets:quits_on",
        "recalibrate --model nets:net --data nets:quits_later",
        "fold --model nets:net --data nets:pairs --forward nets:quits_on",
        "prune --model nets:net --data nets:quits --ratio 0.5",
        "convert --model nets:quits --to group:groups=2",
        "freeze --model nets:quits",
    ],
)
def test_code_that_ends_the_program_is_an_error(
    words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    said = capsys.readouterr().err
    assert "the program was ended by sys.exit(0) in " in said
    assert "nets.py, line" in said
    assert ", in quits" in said


@pytest.mark.parametrize(
    "words",
    [
        "study --model nets:stops --data digits",
        "doctor --model nets:stops",
        "fold --model nets:stops --data nets:pairs",
        "prune --model nets:stops --data nets:pairs --ratio 0.5",
        "recalibrate --model nets:stops --data nets:pairs",
    ],
)
def test_code_that_stops_as_ctrl_c_does_is_an_interruption(
    words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 130
    assert "interrupted" in capsys.readouterr().err


def test_what_is_no_exception_is_no_finding_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Own(BaseException):
        pass

    assert raising(Own("mine"), monkeypatch) == 2
    assert "Own: mine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (">&-", "the standard output is closed"),
        (">/dev/full", "the standard output cannot be written: "),
    ],
)
def test_a_result_that_cannot_be_printed_is_no_success(after: str, said: str) -> None:
    command = f"'{sys.executable}' -m anynorm catalogue {after}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"anynorm: {said}")
    assert "Traceback" not in done.stderr


def test_a_factory_that_closes_the_output_is_no_success(here: Path) -> None:
    words = ["doctor", "--model", "nets:closes_output", "--data", "nets:pairs"]
    command = [sys.executable, "-m", "anynorm", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "anynorm: the standard output is closed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_may_leave_early() -> None:
    command = f"'{sys.executable}' -m anynorm catalogue | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.split()[-1] in ("0", "141")  # 0 if all was written before
    assert done.stderr == ""


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
