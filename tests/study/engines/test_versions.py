"""What tells two installations apart."""

from __future__ import annotations

from pathlib import Path

import pytest

import anynorm
from anynorm.study.engines.versions import _fingerprint, differences, versions


def test_an_edited_file_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anynorm, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "room").mkdir()
    file = tmp_path / "room" / "module.py"
    found = set()
    for text in ("x = 1\n", "x = 2\n", "x = 1\n"):
        file.write_text(text)
        found.add(_fingerprint())
    file.rename(tmp_path / "room" / "other.py")
    found.add(_fingerprint())
    assert len(found) == 3


def test_a_switch_that_only_one_side_has() -> None:
    driver = {**versions(), "ANYNORM_ISA": "other"}
    assert " there and other here" in differences(driver)


def test_what_this_version_does_not_know_of() -> None:
    assert "colour unknown there and red here" in differences({**versions(), "colour": "red"})
