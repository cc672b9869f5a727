"""Loading the compiled kernels: the environment decides, and a broken library breaks nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anynorm import kernels

needs_kernels = pytest.mark.skipif(not kernels.available(), reason=str(kernels.why_not()))
REPORT = "from anynorm import kernels as k; print(k.available(), k.isa(), k.why_not(), sep='|')"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANYNORM_")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=kept | environment)


def report(**environment: str) -> list[str]:
    done = python(REPORT, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


def test_either_the_kernels_run_or_it_is_said_why_not() -> None:
    assert kernels.available() == (kernels.why_not() is None) == (kernels.isa() is not None)


def test_kernels_can_be_left_out() -> None:
    assert report(ANYNORM_KERNELS="0") == ["False", "None", "ANYNORM_KERNELS=0 leaves them out"]


@needs_kernels
def test_the_lowest_instruction_set_can_be_forced() -> None:
    library = os.environ.get("ANYNORM_LIBRARY", "")
    forced = report(ANYNORM_ISA="baseline", ANYNORM_LIBRARY=library)
    assert forced == ["True", "baseline", "None"]


def test_a_missing_library_is_no_error() -> None:
    available, isa, why_not = report(ANYNORM_LIBRARY="nowhere.so")
    assert (available, isa) == ("False", "None")
    assert "there is no file nowhere.so" in why_not


def test_the_build_tells_why_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "_why_not.txt").write_text("the build found no C++ compiler", "utf-8")
    *_, why_not = report(ANYNORM_LIBRARY=str(tmp_path / "_kernels.so"))
    assert why_not.startswith("the build found no C++ compiler; then install anynorm again")


def test_a_broken_library_is_no_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    available, _, why_not = report(ANYNORM_LIBRARY=str(broken))
    assert available == "False"
    assert "broken.so cannot be loaded" in why_not


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ANYNORM_KERNELS": "yes"}, "ANYNORM_KERNELS is 'yes', but must be 0 or 1"),
        ({"ANYNORM_HUGE_PAGES": "2"}, "ANYNORM_HUGE_PAGES is '2', but must be 0 or 1"),
        ({"ANYNORM_ISA": "avx3"}, 'Did you mean "avx2"?'),
        ({"ANYNORM_KERNELS": "1", "ANYNORM_LIBRARY": "nowhere.so"}, "asks for the CPU kernels"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_the_environment_asks_for_is_checked(
    environment: dict[str, str], message: str
) -> None:
    done = python("import anynorm", **environment)
    assert done.returncode == 1
    assert "anynorm.errors." in done.stderr.splitlines()[-1]
    assert message in done.stderr


def test_an_instruction_set_that_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "isa", lambda: "avx2")
    with pytest.raises(kernels.AnynormError, match="its best is avx2"):
        kernels._check_isa("avx512")


@needs_kernels
@pytest.mark.skipif(sys.platform != "linux", reason="readelf is of Linux")
def test_the_library_names_no_path_of_the_machine_that_built_it() -> None:
    library = os.environ.get("ANYNORM_LIBRARY") or Path(kernels.__file__).with_name("_kernels.so")
    try:
        shown = subprocess.run(["readelf", "-d", library], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no readelf")
    assert "RPATH" not in shown.stdout
    assert "RUNPATH" not in shown.stdout
    assert "[libtorch_cpu.so]" in shown.stdout
