"""Names of a user's own functions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from anynorm.errors import AnynormError
from anynorm.study import lookup


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_current_directory_is_searched(here: Path) -> None:
    (here / "lookup_a.py").write_text("class A:\n    def make(): return 5\n")
    assert lookup.resolve("lookup_a:A.make", "model")() == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lookup_missing:f", "there is no module named 'lookup_missing'"),
        ("math:squrt", "no attribute 'squrt'. Did you mean \"sqrt\""),
        ("math:pi", "is a float; give a function"),
    ],
)
def test_errors_say_what_is_wrong(name: str, words: str) -> None:
    with pytest.raises(AnynormError, match=words):
        lookup.resolve(name, "model")


def test_module_that_fails_to_import(here: Path) -> None:
    (here / "lookup_b.py").write_text("1 / 0\n")
    with pytest.raises(AnynormError, match="importing 'lookup_b' failed with ZeroDivisionError"):
        lookup.resolve("lookup_b:f", "data")


def test_functions_get_the_name_that_workers_import() -> None:
    assert lookup.path_of(math.sqrt, "model") == "math:sqrt"
    assert lookup.path_of("cnn", "model") == "cnn"
    with pytest.raises(AnynormError, match="move it to the top level of a module"):
        lookup.path_of(lambda: None, "model")


def test_digest_follows_the_source(here: Path) -> None:
    assert lookup.digest(model="mlp-relu", data="digits") == ""
    file = here / "lookup_c.py"
    file.write_text("def f(): return 1\n")
    before = lookup.digest(model="lookup_c:f")
    file.write_text("def f(): return 2\n")
    assert before != lookup.digest(model="lookup_c:f")
    with pytest.raises(AnynormError, match=r"^data 'lookup_missing:f': there is no module"):
        lookup.digest(model="lookup_c:f", data="lookup_missing:f")
