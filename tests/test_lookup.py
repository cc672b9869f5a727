"""Names of a user's own functions."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from anynorm import lookup
from anynorm.errors import AnynormError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_current_directory_is_searched(here: Path) -> None:
    (here / "lookup_a.py").write_text("class A:\n    def make(): return 5\n")
    assert lookup.resolve("lookup_a:A.make", "model")() == 5


@pytest.mark.parametrize("name", ["lookup_p:f", "lookup_p:g", "lookup_q:f", "lookup_missing:f"])
def test_the_current_directory_is_first_only_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lookup_p.py").write_text(
        "import sys\nPATH = sys.path[0]\ndef f():\n    return PATH, sys.path[0]\n"
    )
    (tmp_path / "lookup_q.py").write_text("1 / 0")
    before = list(sys.path)
    try:
        found = lookup.called(name, "model")
    except AnynormError:
        assert name != "lookup_p:f"
    else:
        assert found == (str(tmp_path),) * 2
    assert sys.path == before


def test_what_the_users_code_adds_to_the_path_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lookup_r.py").write_text(
        "import sys\nsys.path.insert(0, 'own')\ndef f():\n    pass\n"
    )
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    lookup.resolve("lookup_r:f", "model")
    assert sys.path == ["own", *before]


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


def test_calls(here: Path) -> None:
    (here / "lookup_d.py").write_text(
        "def add(a, *, b=1): return a + b\n"
        "def broken(): raise RuntimeError('no weights')\n"
        "def refuse(): raise AnynormError('mine')\n"
        "from anynorm.errors import AnynormError\n"
    )
    assert lookup.called("lookup_d:add", "sum", 1, b=2) == 3
    with pytest.raises(AnynormError, match="with no arguments: missing a required argument: 'a'"):
        lookup.called("lookup_d:add", "sum")
    with pytest.raises(AnynormError, match=r"with int, c=: got an unexpected keyword argument 'c'"):
        lookup.called("lookup_d:add", "sum", 1, c=2)
    with pytest.raises(AnynormError, match=r"no arguments raised RuntimeError\('no weights'\)"):
        lookup.called("lookup_d:broken", "model")
    with pytest.raises(AnynormError, match=r"^mine$"):
        lookup.called("lookup_d:refuse", "model")
