"""The choice of an engine, and names that are none."""

from __future__ import annotations

from typing import Any

import pytest

from anynorm.errors import AnynormError
from anynorm.study.engines import engine
from anynorm.study.engines.pool import ProcessPool


def test_local_takes_as_many_processes_as_it_is_told() -> None:
    made = engine("local", 3)
    assert isinstance(made, ProcessPool)
    assert made.workers == 3


@pytest.mark.parametrize(
    ("on", "workers", "words"),
    [
        ("rai", None, "no engine named 'rai'. Did you mean \"ray\""),
        ("slrum", None, 'Did you mean "slurm"'),
        ("local:4", None, "no engine named 'local:4'"),
        ("", None, "no engine named ''"),
        ("ray:", None, "leave the colon out"),
        (None, None, "on is None"),
        ("ray", 0, "workers is 0"),
        ("slurm:cells=0", None, "cells is 0"),
        ("slurm:cells=many", None, "cells is 'many'"),
        ("slurm:cluster=moon", None, "cluster is 'moon'"),
        ("slurm:partition", None, "cannot read the option 'partition'"),
    ],
)
def test_bad_input(on: Any, workers: int | None, words: str) -> None:
    with pytest.raises(AnynormError, match=words):
        engine(on, workers)


@pytest.mark.parametrize(
    ("on", "module", "extra"),
    [
        ("ray", "ray", "ray"),
        ("ray://host:1", "grpc", "ray"),
        ("slurm", "submitit", "slurm"),
    ],
)
def test_a_missing_package_names_its_extra(
    on: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "anynorm.study.extras.find_spec", lambda name: None if name == module else "found"
    )
    with pytest.raises(AnynormError, match=rf"needs {module}.*pip install 'anynorm\[{extra}\]'"):
        engine(on, None)
