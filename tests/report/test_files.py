"""Files that are complete or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anynorm.errors import AnynormError
from anynorm.report.files import check_target, whole, write_json


def test_what_breaks_off_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before")

    def broken() -> None:
        with whole(file) as beside:
            beside.write_text("half")
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        broken()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_json_that_strict_readers_accept(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": (1.5, float("inf")), "b": [{"c": float("nan")}]})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {"a": [1.5, None], "b": [{"c": None}]}


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    check_target(tmp_path / "new" / "a.txt", "page")
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "new", tmp_path / "file" / "a.txt"):
        with pytest.raises(AnynormError, match=r"the page .* cannot be written"):
            check_target(path, "page")
