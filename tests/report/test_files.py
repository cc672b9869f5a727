"""Files that are complete or absent."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from anynorm.errors import AnynormError
from anynorm.report.files import check_target, read_bounded, whole, write_json, write_whole


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


def test_a_file_keeps_its_mode_and_a_new_one_has_the_usual(tmp_path: Path) -> None:
    private, usual, new = (tmp_path / name for name in ("private", "usual", "new"))
    for file in (private, usual):
        file.write_text("x")
    private.chmod(0o600)
    for file in (private, usual, new):
        write_whole(file, "y")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_a_link_is_followed(tmp_path: Path) -> None:
    link, real = tmp_path / "link", tmp_path / "elsewhere" / "real"
    real.parent.mkdir()
    link.symlink_to(real)
    for text in ("first", "second"):
        write_whole(link, text)
        assert link.is_symlink()
        assert real.read_text() == text
    check_target(link, "page")


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_target(pipe, "page")
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "through")
    reader.join(timeout=10)
    assert received == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    write_json(os.devnull, {"a": 1})
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_no_link_that_was_planted_is_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, page = tmp_path / "victim", tmp_path / "page.html"
    victim.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".page.html.guessed.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(page, "page")
    assert victim.read_text() == "precious"


def test_several_writers_leave_one_whole_file(tmp_path: Path) -> None:
    file, errors = tmp_path / "key.json", list[Exception]()

    def work(letter: str) -> None:
        try:
            for _ in range(50):
                write_whole(file, letter * 10_000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert file.read_text() in [letter * 10_000 for letter in "abc"]
    assert list(tmp_path.iterdir()) == [file]


def test_reading_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    file.write_text("äbc", "utf-8")
    assert read_bounded(file, 4) == "äbc"
    with pytest.raises(AnynormError, match=r"a.json' is larger than the limit of 3 bytes"):
        read_bounded(file, 3)
    monkeypatch.setattr("anynorm.report.files.MOST", 3)
    with pytest.raises(AnynormError, match="larger than the limit of 3 bytes"):
        read_bounded(file)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none")
