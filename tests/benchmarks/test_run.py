"""A whole run: the process that measures, what is left when it dies, and the file."""

import io
import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from benchmarks.result_files import file_name, read
from benchmarks.speed import run, worker
from benchmarks.speed.contestants import BrokenDeviceError
from benchmarks.speed.grids import grid, select
from benchmarks.speed.run import bench, lines

from anynorm.bench.timing import Budget
from anynorm.errors import AnynormError

CASES = select(grid("small"), "^rms/.*/256x128")
MANY = list(grid("small")[:6])
SHORT = Budget(seconds=0.0, fewest=2, most=2, per_round=0.0)
ABOUT = {"allocator": "default", "cpu": "a", "threads": 1, "schema": 1}


def request(cases=CASES, **other):
    return {
        "device": "cpu", "peers": ["eager"], "allocator": "default", "threads": None,
        "budget": vars(SHORT), "settings": {"seconds": 0}, "cases": [asdict(c) for c in cases],
        **other,
    }  # fmt: skip


def test_the_worker_describes_the_run_and_measures_the_cases():
    out = io.StringIO()
    worker.work(request(), out)
    about, *rows = map(json.loads, out.getvalue().splitlines())
    assert about["settings"] == {"seconds": 0}
    assert about["device"] == "cpu"
    assert [row["name"] for row in rows] == [case.name for case in CASES]


class Mortal:
    """A process that dies at some cases, or of a peer, and serves the other cases."""

    def __init__(self, *deadly, broken=None):
        self.deadly, self.broken, self.starts = deadly, broken, 0

    def __call__(self, given):
        self.starts += 1
        yield ABOUT
        for case in given["cases"]:
            name = next(c.name for c in grid("small") if asdict(c) == case)
            if self.broken in ("ours", *given["peers"]):
                yield {"broken": self.broken, "reason": "RuntimeError: illegal"}
                return
            if name in self.deadly:
                return
            yield {"name": name, "us": {"ours": {}}}


def test_a_process_that_dies_is_followed_by_another(monkeypatch):
    mortal = Mortal(MANY[0].name, MANY[3].name)
    monkeypatch.setattr(run, "_process", mortal)
    about, *rows = lines(request(), MANY)
    assert about == ABOUT
    assert [row["name"] for row in rows] == [case.name for case in MANY]
    # Phases that share layers stand in pairs: the first died with the second.
    assert ["process" in row.get("failed", {}) for row in rows] == [1, 1, 0, 1, 0, 0]
    assert mortal.starts == 3


def test_a_peer_that_breaks_the_device_is_left_out(monkeypatch):
    mortal = Mortal(broken="liger")
    monkeypatch.setattr(run, "_process", mortal)
    given = request(peers=["eager", "liger"])
    _, failure, *rows = lines(given, MANY)
    told = "RuntimeError: illegal; left out from here on"
    assert failure == {"name": MANY[0].name, "failed": {"liger": told}}
    assert [row["name"] for row in rows] == [case.name for case in MANY]
    assert mortal.starts == 2
    assert given["peers"] == ["eager", "liger"]


def test_where_we_break_the_device_the_cases_are_failed(monkeypatch):
    monkeypatch.setattr(run, "_process", Mortal(broken="ours"))
    _, *rows = lines(request(), MANY)
    assert [row["failed"] for row in rows] == [{"ours": "RuntimeError: illegal"}] * len(MANY)


def test_a_process_that_only_dies_is_given_up(monkeypatch):
    cases = list(grid("small"))
    mortal = Mortal(*(case.name for case in cases))
    monkeypatch.setattr(run, "_process", mortal)
    assert 1 < len(list(lines(request(), cases))) < len(cases) / 2
    assert mortal.starts == run.PATIENCE


def test_the_worker_says_who_broke_the_device(monkeypatch):
    def measure(*_):
        raise BrokenDeviceError("liger", "illegal")
        yield

    monkeypatch.setattr(worker, "measure", measure)
    out = io.StringIO()
    worker.work(request(), out)
    assert json.loads(out.getvalue().splitlines()[1]) == {"broken": "liger", "reason": "illegal"}


def test_what_was_measured_before_an_interruption_is_written(monkeypatch, tmp_path):
    def tell(line):
        if "name" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "_process", Mortal())
    with pytest.raises(KeyboardInterrupt):
        bench(MANY, device="cpu", peers=["eager"], out=tmp_path / "a.json", tell=tell)
    assert len(read(tmp_path / "a.json")["cases"]) == 1


def test_a_process_that_cannot_begin_is_not_begun_again(monkeypatch):
    monkeypatch.setattr(run, "_process", lambda given: iter(()))
    assert list(lines(request(), MANY)) == []
    assert bench(MANY, device="cpu", peers=["eager"]) is None


def test_no_case_begins_after_the_end(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(run, "_process", Mortal())
    found = list(lines(request(), MANY, until=2.5))
    assert [line["name"] for line in found[1:]] == [case.name for case in MANY[:2]]


def test_results_and_failures_are_written_as_they_come(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "_process", Mortal(MANY[1].name))
    monkeypatch.setattr(run, "SECONDS_BETWEEN_WRITES", -1.0)
    sizes, path = [], tmp_path / "deep" / "result.json"

    def tell(line):
        sizes.append(len(read(path)["cases"]) if path.exists() else 0)

    found = bench(MANY, device="cpu", peers=["eager"], out=path, tell=tell)
    assert sizes == [0, 0, 1, 1, 2, 3, 4]  # nothing of the case at which it died
    written = read(path)
    assert len(written["cases"]) == 5
    assert [failure["contestant"] for failure in found["failed"]] == ["process"]
    assert written["about"]["wanted"] == 6
    folder = tmp_path / "folder"
    bench(MANY, device="cpu", peers=["eager"], out=folder)
    assert [file.name for file in folder.iterdir()] == [file_name(ABOUT)]


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", "raise SystemExit(3)"])
def test_processes_that_hang_or_die_at_once_end(monkeypatch, program):
    started, command = subprocess.Popen, [sys.executable, "-c", program]
    monkeypatch.setattr(run, "MOST_SECONDS_A_CASE", 0.1)
    monkeypatch.setattr(run.subprocess, "Popen", lambda _, **rest: started(command, **rest))
    assert list(run._process(request(list(grid("goals"))))) == []


def test_peers_are_checked_before_anything_is_measured():
    with pytest.raises(AnynormError, match="no peer named 'egaer'"):
        bench(CASES, device="cpu", peers=["egaer"])


@pytest.mark.slow
def test_a_real_process(tmp_path):
    path = tmp_path / "result.json"
    found = bench(CASES, device="cpu", peers=["eager"], budget=SHORT, threads=1, out=path)
    assert found["failed"] == []
    assert [row["name"] for row in read(path)["cases"]] == [case.name for case in CASES]
    assert found["about"]["threads"] == 1
