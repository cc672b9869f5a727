"""The documented example of a study on Ray."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anynorm.study.store import Store

EXAMPLE = Path(__file__).parents[3] / "examples" / "study_on_ray.py"


@pytest.mark.slow
def test_it_runs_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    shutil.copy(EXAMPLE, tmp_path)
    command = [sys.executable, EXAMPLE.name]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    runs = len(Store(tmp_path / "study-on-ray").present())
    assert runs >= 3 * 2 * 3
    assert f"{runs} of {runs} runs, 0 of them from before" in first.stdout
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"{runs} of {runs} runs, {runs} of them from before" in again.stdout
