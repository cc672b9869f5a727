"""The store: atomic records, merging by copying, and files that cannot be read."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from anynorm.errors import AnynormError
from anynorm.report import files
from anynorm.study.cell import Cell
from anynorm.study.store import Store


def record(**changes: Any) -> dict[str, Any]:
    base = {"subject": "mlp-relu", "data": "digits", "norm": "batch", "lr": 0.1}
    cell = Cell(**{**base, "steps": 10, "seed": 0, **changes})
    names = ("curve", "evaluations", "final", "probes", "cost", "environment")
    parts: dict[str, Any] = {name: {} for name in names}
    parts |= {"task": "classification", "status": "ok", "diverged_at": None}
    return {"schema": 1, "key": cell.key, "cell": cell.to_dict(), **parts}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store, made = Store(tmp_path / "new" / "folder"), record()
    store.write(made)
    assert store.read(made["key"]) == made
    assert store.records() == [made]
    assert [path.name for path in store.folder.iterdir()] == [f"{made['key']}.json"]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    store, made = Store(tmp_path), record()
    made["final"] = {"loss": [float("nan"), float("inf"), 1.5]}
    store.write(made)
    found = store.read(made["key"])
    assert found is not None
    assert found["final"] == {"loss": [None, None, 1.5]}


def test_absent_record_is_none(tmp_path: Path) -> None:
    assert Store(tmp_path).read("0" * 24) is None


def test_two_stores_merge_by_copying(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    for seed in (0, 1):
        one.write(record(seed=seed))
    for seed in (1, 2):
        other.write(record(seed=seed))
    shutil.copytree(other.folder, one.folder, dirs_exist_ok=True)
    assert sorted(found["cell"]["seed"] for found in one.records()) == [0, 1, 2]


def _damage(path: Path, how: str) -> None:
    whole = json.loads(path.read_text())
    texts = {
        "empty": "",
        "cut": path.read_text()[:-20],
        "list": "[1, 2]",
        "null": "null",
        "schema": json.dumps({**whole, "schema": 99}),
        "lacking": json.dumps({name: whole[name] for name in whole if name != "final"}),
        "strange part": json.dumps({**whole, "cost": None}),
        "other cell": json.dumps({**whole, "cell": {**whole["cell"], "seed": 7}}),
        "strange cell": json.dumps({**whole, "cell": {"colour": "red"}}),
    }
    path.write_text(texts[how])


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "cut", "list", "null", "schema"),
        *("lacking", "strange part", "other cell", "strange cell"),
    ],
)
def test_corrupt_record_is_moved_aside_and_said_aloud(tmp_path: Path, how: str) -> None:
    store, made = Store(tmp_path), record()
    for number in (1, 2):
        store.write(made)
        _damage(store.path(made["key"]), how)
        with pytest.warns(UserWarning, match=f"moved to .*corrupt-{number}"):
            assert store.read(made["key"]) is None
        assert (tmp_path / f"{made['key']}.json.corrupt-{number}").exists()
    store.write(made)
    assert store.records() == [made]


def test_a_file_too_large_for_a_record_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, made = Store(tmp_path), record()
    store.write(made)
    monkeypatch.setattr(files, "MOST", 100)
    with pytest.warns(UserWarning, match="is larger than the limit of 100 bytes.*moved to"):
        assert store.read(made["key"]) is None


def test_binary_rubbish_is_moved_aside(tmp_path: Path) -> None:
    store, key = Store(tmp_path), record()["key"]
    store.path(key).write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert store.records() == []


def test_folder_in_place_of_a_record_is_moved_aside(tmp_path: Path) -> None:
    store, made = Store(tmp_path), record()
    store.path(made["key"]).mkdir()
    with pytest.warns(UserWarning, match="moved to"):
        assert store.read(made["key"]) is None
    store.write(made)
    assert store.records() == [made]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    for name in ("report.html", "notes.json", f"{'0' * 24}.json.corrupt-1"):
        (tmp_path / name).write_text("x")
    assert Store(tmp_path).records() == []
    assert len(list(tmp_path.iterdir())) == 3


def test_leftovers_of_killed_runs_are_ignored_and_old_ones_removed(tmp_path: Path) -> None:
    old, young = tmp_path / f".{'0' * 24}.1.tmp", tmp_path / f".{'1' * 24}.2.tmp"
    for path in (old, young):
        path.write_text("{")
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    assert Store(tmp_path).records() == []
    assert not old.exists()
    assert young.exists()  # somebody may be writing it


def test_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnynormError, match=r"cannot be written: .*Choose another folder"):
        Store(tmp_path / "file" / "store")


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is read-only for root")
def test_read_only_store(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AnynormError, match="Permission denied"):
        Store(tmp_path)


def test_a_record_that_is_nested_too_deep_is_moved_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / f"{'a' * 24}.json").write_text("[" * 100_000)
    with pytest.warns(UserWarning, match="moved to"):
        assert store.read("a" * 24) is None
