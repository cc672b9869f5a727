"""The study as a whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import anynorm
from anynorm.errors import AnynormError
from anynorm.report.files import finite
from anynorm.study import Study, study
from anynorm.study.api import _plan
from anynorm.study.cell import Cell
from anynorm.study.engines import Outcome
from anynorm.study.store import Store
from anynorm.study.subjects import SUBJECTS
from anynorm.study.train import run

SMALL: dict[str, Any] = {"norms": ["none", "batch"], "lrs": [0.1, 1.0], "inits": [], "batches": []}
SMALL |= {"steps": 6, "seeds": 2, "placements": ["before"], "refine": 0, "experiments": False}
SMALL |= {"workers": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def found(folder: Path) -> Study:
    return study(**SMALL, store=folder / "store", report=folder / "report.html")


def test_every_planned_run_has_its_record(found: Study, folder: Path) -> None:
    assert (len(found.records), found.planned, found.reused) == (8, 8, 0)
    assert not found.failures
    assert len(list((folder / "store").glob("*.json"))) == 8
    assert sum(record["probes"] is not None for record in found.records) == 4


def test_results_in_every_form(found: Study, folder: Path) -> None:
    assert found.verdict["kind"] in ("use", "undecided", "no benefit")
    assert found.evidence["partial"] is False
    assert len(found.frame()) == 8
    found.to_parquet(folder / "runs.parquet")
    assert (folder / "runs.parquet").stat().st_size > 0
    assert "<html" in (folder / "report.html").read_text()


def test_table_is_printed(found: Study, capsys: pytest.CaptureFixture[str]) -> None:
    found.table()
    assert found.verdict["headline"] in capsys.readouterr().out


def test_second_study_runs_only_what_is_new(found: Study, folder: Path) -> None:
    again = study(**{**SMALL, "seeds": 3}, store=folder / "store")
    assert (again.reused, again.planned) == (8, 12)
    assert [record for record in again.records if record in found.records] == found.records


def test_corrupt_record_is_run_again(found: Study, folder: Path) -> None:
    victim = found.records[0]
    Store(folder / "store").path(victim["key"]).write_text("{")
    with pytest.warns(UserWarning, match="moved to"):
        again = study(**SMALL, store=folder / "store")
    assert again.reused == 7
    repaired = next(record for record in again.records if record["key"] == victim["key"])
    assert {**repaired, "cost": None} == {**victim, "cost": None}


def test_the_package_can_be_called(folder: Path) -> None:
    with pytest.raises(AnynormError, match="Did you mean"):
        anynorm.study("mlp-rel", store=folder / "other")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "mlp-rulu"}, 'Did you mean "mlp-relu"'),
        ({"data": "digit"}, 'Did you mean "digits"'),
        ({"norms": ["bacth"]}, 'Did you mean "batch"'),
        ({"norms": "batch"}, r"give a list, norms=\['batch'\]"),
        ({"norms": []}, "norms is empty"),
        ({"norms": ["group:groups=7"]}, "7"),
        ({"lrs": 0.1}, r"give a list, lrs=\[0.1\]"),
        ({"lrs": [-1.0]}, "lr is -1.0; it must be positive"),
        ({"placements": ["between"]}, "no placement named 'between'"),
        ({"optimizer": "adm"}, 'Did you mean "adam"'),
        ({"seeds": 0}, "seeds is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"batch": 5000}, "larger than the training set"),
        ({"refine": -1}, "refine is -1"),
        ({"norms": [None]}, "normalizer None is not a text"),
        ({"store": "/dev/null/store"}, "the store '/dev/null/store' cannot be written"),
        (
            {"store": "/dev/null/store", "report": "/dev/null/store/report.html"},
            "the store '/dev/null/store' cannot be written",
        ),
        ({"report": "/dev/null/report.html"}, "the report '/dev/null/report.html' cannot"),
        ({"model": lambda norm: None}, "cannot be imported by the worker processes"),
    ],
)
def test_bad_input_is_found_before_any_run(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(AnynormError, match=words):
        study(**{"store": tmp_path / "store", **SMALL, **changes})
    assert not list(tmp_path.glob("store/*"))


def test_interrupted_before_the_first_run_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anynorm.study.api.run_cells", lambda *_, **__: Outcome(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        study(**SMALL, store=tmp_path)


def test_when_every_run_fails_the_first_failure_is_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api_models.py").write_text(
        "import multiprocessing\nfrom torch import nn\n"
        "def fails(norm):\n"
        "    if multiprocessing.parent_process(): raise ArithmeticError('only in workers')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), norm(10))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = {**SMALL, "norms": ["batch"], "lrs": [0.1], "seeds": 1}
    with pytest.raises(AnynormError, match=r"(?s)every run failed.*only in workers"):
        study("api_models:fails", **options, store="store")


def test_optimizers_shift_the_default_learning_rates() -> None:
    given = {"optimizer": "adam", "seeds": 1, "probes": True}
    assert _plan("mlp-relu", None, **given).lr == pytest.approx(0.001)


def test_a_subjects_own_optimizer_is_translated_to_another() -> None:
    own = _plan("char-transformer", None, seeds=1, probes=True)
    assert (own.optimizer, own.lr, own.weight_decay, own.warmup) == ("adamw", 0.01, 0.01, 40)
    other = _plan("char-transformer", None, optimizer="sgd", seeds=1, probes=True)
    assert (other.optimizer, other.lr, other.warmup) == ("sgd", pytest.approx(1), 40)
    assert other.lr * other.weight_decay == pytest.approx(own.lr * own.weight_decay)
    assert other.lrs == pytest.approx([100 * lr for lr in own.lrs])


ATTENTION = """
import torch
from torch import nn

class SelfAttention(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm(8)

def without(norm): return nn.Sequential(nn.Linear(64, 8), norm(8))
def of_torch(): return nn.TransformerEncoderLayer(8, 2)
def of_a_collection(norm): return nn.Sequential(SelfAttention(norm))
"""


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("without", "sgd"), ("of_torch", "adamw"), ("of_a_collection", "adamw")],
)
def test_a_users_model_with_attention_is_trained_with_adamw(
    name: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api_attention.py").write_text(ATTENTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = _plan(f"api_attention:{name}", None, seeds=1, probes=True)
    assert plan.optimizer == optimizer
    assert (plan.warmup > 0, plan.weight_decay > 0) == (optimizer == "adamw",) * 2
    assert min(plan.lrs) < plan.lr < max(plan.lrs)
    chosen = _plan(f"api_attention:{name}", None, optimizer="momentum", seeds=1, probes=True)
    assert (chosen.optimizer, chosen.lr) == ("momentum", pytest.approx(0.01))


def test_a_shorter_study_has_a_shorter_warm_up() -> None:
    assert _plan("char-transformer", None, steps=100, seeds=1, probes=True).warmup == 10


def test_settings_of_the_optimizer_reach_the_plan() -> None:
    given = {"optimizer": "adamw", "weight_decay": 0.1, "warmup": 7, "seeds": 1, "probes": True}
    plan = _plan("mlp-relu", None, **given)
    assert (plan.optimizer, plan.weight_decay, plan.warmup) == ("adamw", 0.1, 7)


def test_base_learning_rate_is_the_nearest_of_a_given_grid() -> None:
    given = {"optimizer": "sgd", "seeds": 1, "probes": True}
    assert _plan("mlp-relu", None, **given, lrs=[0.02, 0.2, 2]).lr == 0.2
    assert _plan("mlp-relu", None, **given, lrs=[0.02, 0.2, 2], lr=0.05).lr == 0.05


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_settings_of_every_subject_make_a_plan(name: str) -> None:
    cells = _plan(name, None, seeds=1, probes=True).star()
    assert {cell.optimizer for cell in cells} == {SUBJECTS[name].settings.optimizer}
    assert len({cell.norm for cell in cells}) >= 2


COMMAND = (
    "-m anynorm study --norms none batch --lrs 0.1 1 3 --inits 0.1 1 --batches --steps 100 "
    "--placements before --seeds 3 --no-noise --refine 0 --workers 2 --store store --no-progress"
)


def _start(folder: Path, count: int) -> subprocess.Popen[str]:
    """Start the command, and return once it has written `count` records or ended."""
    process = subprocess.Popen(
        [sys.executable, *COMMAND.split()],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and len(_records(folder)) < count:
        time.sleep(0.01)
    return process


def _records(folder: Path) -> list[Path]:
    return list(folder.glob("store/*.json"))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_killed_at_random_moments_the_command_resumes(tmp_path: Path) -> None:
    kills, moments = 0, random.Random(0)
    while kills < 6:
        process = _start(tmp_path, len(_records(tmp_path)) + 1)
        if process.poll() is not None:
            break
        time.sleep(moments.uniform(0, 0.5))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
        time.sleep(1)
        assert not any(_alive(int(child)) for child in children)
    reused = len(_records(tmp_path))
    last = subprocess.run(
        [sys.executable, *COMMAND.split()], cwd=tmp_path, capture_output=True, text=True
    )
    assert last.returncode == 0, last.stderr
    records = Store(tmp_path / "store").records()
    print(f"{kills} kills, {reused} of {len(records)} records were there before the last run")
    assert kills >= 3
    assert len(records) == 2 * 3 * 4 + 3  # and batch norm with γ and β fixed
    for record in records:
        again = finite(run(Cell.from_dict(record["cell"])))
        assert json.dumps({**again, "cost": 0}) == json.dumps({**record, "cost": 0})


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_writes_a_partial_report(tmp_path: Path) -> None:
    process = _start(tmp_path, 3)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted with" in err
    assert "Traceback" not in err
    assert "Partial study" in out
    assert 3 <= len(_records(tmp_path)) < 24
    assert "<html" in (tmp_path / "store" / "report.html").read_text()
