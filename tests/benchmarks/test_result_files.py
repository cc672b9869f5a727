"""Result files: described, written whole or not at all, and read back."""

import json

import pytest
from benchmarks import result_files as files

from anynorm.errors import AnynormError


def test_a_run_is_described():
    about = files.about("default", {"seconds": 1})
    assert about["schema"] == files.SCHEMA
    assert about["settings"] == {"seconds": 1}
    for key in ("commit", "dirty", "date", "cpu", "threads", "isa", "torch", "environment", "load"):
        assert key in about
    json.dumps(about)


def test_only_what_changes_the_measurement_is_kept_of_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("SOME_PASSWORD", "secret")
    found = files.about("default", {})["environment"]
    assert found["OMP_NUM_THREADS"] == "2"
    assert "SOME_PASSWORD" not in found


def test_written_and_read_with_four_digits(tmp_path):
    path = tmp_path / "deep" / "result.json"
    files.write(path, {"about": {"schema": files.SCHEMA}, "cases": [{"us": 1.23456, "n": 123456}]})
    assert files.read(path)["cases"] == [{"us": 1.235, "n": 123456}]
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        files.write(path, {"about": object()})

    def refuse(*_):
        raise OSError("full")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError, match="full"):
        files.write(path, {"about": {}})
    assert path.read_text() == "old"


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"about": {"schema": 0}}')
    with pytest.raises(AnynormError, match="schema 0"):
        files.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"about": 3}'])
def test_what_is_no_result_is_refused(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(AnynormError, match="no result of a benchmark"):
        files.read(path)
    with pytest.raises(AnynormError, match="no result of a benchmark"):
        files.read(tmp_path / "absent.json")


def test_a_copy_without_history_says_what_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setenv("ANYNORM_COMMIT", "abc")
    about = files.about("default", {})
    assert (about["commit"], about["dirty"]) == ("abc", None)


def test_one_file_for_each_machine_and_setting():
    about = files.about("default", {})
    other = {**about, "allocator": "kept"}
    assert files.file_name(about) != files.file_name(other)
    assert files.file_name(about) != files.file_name({**about, "threads": 77})
    gpu = {**about, "gpu": {"name": "NVIDIA H200"}}
    assert files.file_name(gpu, "rows") == "rows-nvidia-h200.json"
