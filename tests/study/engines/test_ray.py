"""Ray on this machine: answers, failures, deaths, and input that cannot work."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from engine_cells import built_in, cell, comparable, expected

from anynorm.errors import AnynormError
from anynorm.study.api import study
from anynorm.study.cell import Cell
from anynorm.study.engines import Engine, engine, run_cells
from anynorm.study.engines.ray import _Capacity, _runtime, _task
from anynorm.study.engines.reach import check_reachable
from anynorm.study.engines.versions import SWITCHES, versions
from anynorm.study.engines.work import answer
from anynorm.study.store import Store

pytest.importorskip("ray")


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = engine("ray", 2)
    yield made
    made.close()


def test_records_failures_and_another_version(
    store: Store, local: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [*(built_in(seed) for seed in range(3)), cell("well")]
    bad = [cell("raises"), cell("refused")]
    done: list[Cell] = []
    outcome = run_cells(local, iter([*bad, *good]), store, done=done.append)
    assert not outcome.interrupted
    assert set(done) == {*good, *bad}
    assert {one["key"]: comparable(one) for one in store.records()} == expected(good)
    reasons = {failure.cell: failure.reason for failure in outcome.failures}
    assert set(reasons) == set(bad)
    assert "on purpose" in reasons[bad[0]]
    assert reasons[bad[1]] == "this is the rule"

    other = {**versions(), "torch": "1.0"}
    monkeypatch.setattr("anynorm.study.engines.ray.versions", lambda: other)
    with pytest.raises(AnynormError, match=r"torch \S+ there and 1\.0 here"):
        run_cells(local, [built_in(9)], store, done=lambda _: None)
    assert built_in(9).key not in store.present()


@pytest.mark.slow
def test_a_lost_process_is_tried_again_but_not_for_ever(
    store: Store, local: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anynorm.study.engines.ray._TRIES", 2)
    outcome = run_cells(local, [cell("dies"), cell("dies_once")], store, done=lambda _: None)
    assert store.present() == {cell("dies_once").key}
    [failure] = outcome.failures
    assert failure.cell == cell("dies")
    assert "lost 2 times" in failure.reason


@pytest.mark.slow
def test_ctrl_c_leaves_what_is_at_work_to_the_end_of_the_connection(
    store: Store, local: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray 2.60 aborts the process that cancels a task which ends at that moment."""
    canceled: list[Any] = []
    monkeypatch.setattr("ray.cancel", lambda task, **_: canceled.append(task))

    def interrupt(_: Cell) -> None:
        raise KeyboardInterrupt

    outcome = run_cells(local, [built_in(seed) for seed in range(9)], store, done=interrupt)
    assert outcome.interrupted
    assert len(store.present()) == 1
    assert not canceled


@pytest.mark.slow
def test_what_the_pool_has_begun_ray_finishes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options: dict[str, Any] = {"norms": ["batch"], "lrs": [0.1], "noise": False, "probes": False}
    options |= {"inits": [], "batches": [], "placements": ["before"], "refine": 0, "steps": 2}
    options |= {"workers": 2, "store": store.folder, "progress": False}
    study("pool_models:well", seeds=1, on="local", **options)
    begun = {key: store.path(key).stat().st_mtime_ns for key in store.present()}
    finished = study("pool_models:well", seeds=2, on="ray", **options)
    assert finished.reused == len(begun) > 0
    assert all(store.path(key).stat().st_mtime_ns == when for key, when in begun.items())
    records = {record["key"]: comparable(record) for record in finished.records}
    assert len(records) > len(begun)
    assert records == expected([Cell.from_dict(record["cell"]) for record in finished.records])


def test_another_version_is_refused_by_name() -> None:
    driver = {**versions(), "torch": "1.0", "Python": "2.7"}
    kind, why = answer(built_in(0).to_dict(), driver, 600.0, "late")
    assert kind == "refused"
    assert f"torch {torch.__version__} there and 1.0 here" in why
    assert "and 2.7 here" in why
    assert "anynorm" not in why.split("differs")[1].split(". Records")[0]


def test_a_worker_without_these_modules_says_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anynorm.study.engines.work", None)
    kind, why = _task({**versions(), "anynorm": "9.9"})({}, 600.0, "late")
    assert kind == "refused"
    assert f"torch {torch.__version__.split('+')[0]}" in why
    assert "this process has anynorm 9.9" in why


@pytest.mark.parametrize("scheme", ["ray:", "ray://"])
def test_no_cluster_at_the_address(store: Store, scheme: str) -> None:
    with socket.socket() as held:  # bound, but nothing listens
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(
            AnynormError, match=f"no Ray cluster can be reached at .*{address}.*--on ray"
        ):
            run_cells(engine(scheme + address, 1), [cell("well")], store, done=lambda _: None)
    assert not store.present()


@pytest.mark.slow
def test_what_listens_there_is_not_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anynorm.study.engines.reach._HEALTH_SECONDS", 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(AnynormError, match="something listens there"):
            check_reachable(address)


@pytest.mark.parametrize("address", ["host:port", "host:0", ":6379", "ray://:1", "host:99999"])
def test_an_address_that_cannot_be_read(address: str) -> None:
    with pytest.raises(AnynormError, match="write host:port"):
        check_reachable(address)


def test_a_cluster_without_cpus_is_an_error_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, found = [1000.0], [4.0]
    monkeypatch.setattr("anynorm.study.engines.ray.time.monotonic", lambda: clock[0])
    capacity = _Capacity(lambda: found[0])
    assert capacity.cpus() == 4
    found[0] = 0.0
    assert capacity.cpus() == 4  # it is not asked again so soon
    clock[0] += 6
    assert capacity.cpus() == 0
    clock[0] += 61
    with pytest.raises(AnynormError, match="no CPU for 60 seconds"):
        capacity.cpus()


def test_what_travels_to_a_cluster(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SWITCHES, "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    assert _runtime(built_in(0), store) == {}
    monkeypatch.setenv(SWITCHES[0], "0")
    assert _runtime(built_in(0), store) == {"env_vars": {SWITCHES[0]: "0"}}
    own = _runtime(cell("well", source="abc"), store)
    assert own["working_dir"] == str(store.folder.parent)
    assert "/store/" in own["excludes"]
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert _runtime(cell("well", source="abc"), store) == {}
