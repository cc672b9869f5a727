"""All figures of a GPU in one command: its stages, their time and what is left behind."""

import itertools
import os
import subprocess
import sys
import zipfile

import pytest
import torch
from benchmarks import gpu
from benchmarks.gpu import STAGES, Stage
from benchmarks.result_files import write
from benchmarks.speed.grids import grid
from unmeasured import gpu_result

from anynorm.errors import AnynormError


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(gpu, "resolve", lambda name: "cuda:0")


def test_the_tests_come_first_and_then_grids_and_models_whose_ends_are_in_order():
    first, *others = STAGES
    assert first.grid is first.model is None
    assert first.end * 9 < 2.5  # minutes
    assert all((stage.grid is None) != (stage.model is None) for stage in others)
    assert [stage.end for stage in STAGES] == sorted(stage.end for stage in STAGES)
    assert STAGES[-1].end < 1


def test_time_that_is_left_goes_to_the_next_and_none_begins_after_its_end(
    device, monkeypatch, tmp_path, capsys
):
    seen, clock = [], itertools.count(0, 180)  # each look at the clock is three minutes later
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(gpu, "run", lambda stage, _, out, left: seen.append((stage.name, left)))
    gpu.main(["--minutes", "20", "--out", str(tmp_path / "gpu")])
    looks = enumerate(STAGES, 1)
    left = [(stage.name, pytest.approx(stage.end * 1200 - 180 * look)) for look, stage in looks]
    assert 0 < len(seen) < len(left)
    assert seen == [one for one in left if one[1].expected > 0]
    assert "cuda:0: 20 minutes for correctness rows" in capsys.readouterr().out
    seen.clear()
    gpu.main(["--minutes", "1", "--stages", "launch", "--out", str(tmp_path / "gpu")])
    assert seen == []


def test_a_stage_of_cases_is_written_and_summarized(device, monkeypatch, tmp_path, capsys):
    def bench(cases, *, out, peers, tell, **options):
        assert (options["device"], peers) == ("cuda:0", ("eager",))
        assert cases == grid("launch")
        result = gpu_result("launch")
        tell({**result["about"], "load": None})
        tell(result["cases"][0])
        write(out, result)

    monkeypatch.setattr(gpu, "bench", bench)
    gpu.main(["--stages", "launch", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert grid("launch")[0].name in shown
    assert "| small shapes: never slower than torch | yes | 168 | 168 | 168 |" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"launch.json", "summary.md", "speed.svg"}


def test_a_model_is_trained_in_another_process_that_ends_in_time(monkeypatch, tmp_path, capsys):
    calls = []

    def command(*words):
        calls.append(words)
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    monkeypatch.setattr(gpu, "command", command)
    gpu.run(Stage("net", 1.0, model="resnet50"), "cuda:0", tmp_path, 0.05)
    assert "resnet50: not finished in time" in capsys.readouterr().out
    from benchmarks.resnet import parse

    options = parse([str(word) for word in calls[0][1:]])
    assert (options.model, options.device, options.compile) == ("resnet50", "cuda:0", False)
    assert options.results == tmp_path


def test_a_model_is_compiled_where_there_is_time(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(gpu, "within", lambda seconds, words: calls.append(words))
    for seconds in (60.0, 600.0):
        gpu.run(Stage("net", 1.0, model="resnet50"), "cuda:0", tmp_path, seconds)
    assert ["--compile" in words for words in calls] == [False, True]


def test_packages_to_compare_with_come_from_wheels(device, monkeypatch, tmp_path, capsys):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "peer-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("a_peer_of_the_tests.py", "there = True")
    found = []

    def run(*_):
        import a_peer_of_the_tests

        code = "import a_peer_of_the_tests as peer; print(peer.there)"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        found.append((a_peer_of_the_tests.there, child.stdout.strip()))

    monkeypatch.setattr(gpu, "run", run)
    monkeypatch.setattr(gpu, "WHEELS", wheels)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    gpu.main(["--stages", "launch", "--out", str(tmp_path / "gpu")])
    assert found == [(True, b"True")]
    assert "from wheels: peer-1.0-py3-none-any.whl" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AnynormError, match="there is no device 'cuda'"):
        gpu.main(["--out", str(tmp_path)])
