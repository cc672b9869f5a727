"""The store at a URL, where files appear whole and where they are written and renamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_cells import built_in, comparable, expected

from anynorm.errors import AnynormError
from anynorm.report import files
from anynorm.study.engines import engine, run_cells
from anynorm.study.remote import RemoteStore, open_store
from anynorm.study.store import Store

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemoteStore]:
    made = RemoteStore(f"{request.param}://{tmp_path}/new/store")
    yield made
    made.files.rm(made.root, recursive=True)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    from anynorm.study.train import run

    return run(built_in(0))


def test_what_is_written_is_read_and_nothing_else_is_left(
    store: RemoteStore, record: dict[str, Any]
) -> None:
    store.write(record)
    found = store.read(record["key"])
    assert found is not None
    assert comparable(found) == comparable(record)
    assert store.present() == {record["key"]}
    assert [Path(name).name for name in store.files.ls(store.root, detail=False)] == [
        f"{record['key']}.json"
    ]


def test_absent_record_is_none(store: RemoteStore) -> None:
    assert store.read("0" * 24) is None
    assert store.records() == []


def test_a_record_that_was_cut_short_is_moved_aside(
    store: RemoteStore, record: dict[str, Any]
) -> None:
    for number in (1, 2):
        store.files.pipe_file(f"{store.root}/{record['key']}.json", b'{"schema": 1')
        with pytest.warns(UserWarning, match=f"moved to .*corrupt-{number}"):
            assert store.read(record["key"]) is None
    store.write(record)
    assert [one["key"] for one in store.records()] == [record["key"]]


def test_a_file_too_large_for_a_record_is_moved_aside(
    store: RemoteStore, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(record)
    monkeypatch.setattr(files, "MOST", 100)
    with pytest.warns(UserWarning, match="is larger than the limit of 100 bytes.*moved to"):
        assert store.read(record["key"]) is None


def test_what_breaks_off_while_it_is_written_leaves_no_record(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RemoteStore(f"file://{tmp_path}")

    def breaks(path: str, data: bytes) -> None:
        Path(path).write_bytes(data[:100])
        raise OSError("the line is dead")

    monkeypatch.setattr(store.files, "pipe_file", breaks)
    with pytest.raises(AnynormError, match="cannot be written: OSError: the line is dead"):
        store.write(record)
    assert store.present() == set()


def test_processes_write_to_a_url(tmp_path: Path) -> None:
    store, cells = RemoteStore(f"file://{tmp_path}/store"), [built_in(0), built_in(1)]
    outcome = run_cells(engine("local", 1), cells, store, done=lambda _: None)
    assert not outcome.failures
    assert {one["key"]: comparable(one) for one in store.records()} == expected(cells)


def test_folders_and_file_urls_are_folders(tmp_path: Path) -> None:
    for location in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        store = open_store(location)
        assert isinstance(store, Store)
        assert store.folder == tmp_path


def test_the_memory_of_this_process_is_no_store() -> None:
    with pytest.raises(AnynormError, match="would be lost when this process ends"):
        open_store("memory://study")


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "must be the name of a folder, or a URL"),
        ("\0", "cannot be written: .*null byte"),
        ("s3:/bucket/study", "a URL has two slashes after the colon"),
        ("file://host/study", "names no folder; write file:///folder"),
        ("local://", "names no folder"),
        ("simplecache::memory://study", "is a chain of URLs"),
        ("github://study", "cannot be opened: .*A store is a folder, or a URL"),
        ("S4://bucket", "Protocol not known: s4"),
        ("data://,x", "cannot be written: ValueError: Read only"),
    ],
)
def test_what_is_no_store_is_an_error_of_ours(
    location: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AnynormError, match=words):
        open_store(location)
    assert not list(tmp_path.iterdir())


def test_the_home_folder_is_meant_by_its_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    store = open_store("~/study")
    assert isinstance(store, Store)
    assert store.folder == tmp_path / "study"


@pytest.mark.parametrize(
    ("call", "done"), [("cat_file", "read"), ("ls", "read"), ("mv", "written")]
)
def test_a_file_system_that_fails_later_is_an_error_of_ours(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, call: str, done: str
) -> None:
    store = RemoteStore(f"file://{tmp_path}")
    store.write(record)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("the server is gone")

    monkeypatch.setattr(store.files, call, fails)
    with pytest.raises(AnynormError, match=f"cannot be {done}: RuntimeError: the server is gone"):
        store.read(record["key"]), store.present(), store.write(record)
    monkeypatch.undo()
    assert store.present() == {record["key"]}  # nothing was moved aside


def test_a_folder_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.folder.rmdir()
    with pytest.raises(AnynormError, match="cannot be read: No such file"):
        store.present()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s4://bucket/study", "Protocol not known: s4.*whose protocol fsspec knows"),
        ("file:///dev/null/store", "cannot be written: .*choose another with store="),
    ],
)
def test_urls_that_cannot_work(url: str, words: str) -> None:
    with pytest.raises(AnynormError, match=words):
        RemoteStore(url)
