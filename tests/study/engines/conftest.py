"""A store in a folder that has the models of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_cells import SOURCE

from anynorm.study.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "pool_models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Store(tmp_path / "store")
