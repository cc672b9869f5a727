"""What is said when a package that only the study needs is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from anynorm.errors import AnynormError
from anynorm.study import study
from anynorm.study.data import load
from anynorm.study.extras import require
from anynorm.study.frame import frame, write_parquet


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the study's packages."""
    load.cache_clear()
    monkeypatch.setattr("anynorm.study.extras.find_spec", lambda name: None)


def test_what_is_installed_passes() -> None:
    require("torch", "the layers")


@pytest.mark.usefixtures("bare")
def test_each_missing_package_names_the_command_that_installs_it(tmp_path: Path) -> None:
    calls = {
        "data 'digits' needs sklearn": lambda: load("digits"),
        "a data frame needs pandas": lambda: frame([]),
        "a Parquet file needs pyarrow": lambda: write_parquet([], tmp_path / "x.parquet"),
        "the report needs plotly": lambda: study(report=tmp_path / "x.html", store=tmp_path),
    }
    for message, call in calls.items():
        with pytest.raises(AnynormError, match=rf"{message}.*pip install 'anynorm\[study\]'"):
            call()
