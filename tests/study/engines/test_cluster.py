"""A Ray cluster of two nodes, each with its own processes: nodes and drivers die in mid-study."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_cells import comparable, expected

from anynorm.study.cell import Cell
from anynorm.study.store import Store

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Ray leaves the log files of the servers that it starts to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <_io.FileIO name=.*ray_client_server"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:unclosed file .*ray_client_server:ResourceWarning"),
]

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
COMMAND = (
    "-m anynorm study --model pool_models:well --norms none batch layer --lrs 0.01 0.1 1 "
    "--inits --batches --placements before --no-noise --no-probes --refine 0 --steps 80 "
    "--store store --no-progress"
)
PER_SEED = 3 * 3
# A model whose cell never ends on the node that the file "hold" in a folder names.
HELD = """
def held(norm):
    import ray
    hold, here = Path({folder!r}, "hold"), ray.is_initialized() and ray.get_runtime_context()
    if here and hold.exists() and here.get_node_id() == hold.read_text():
        hold.with_name("held").touch()
        time.sleep(600)
    return well(norm)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        head = {**NODE, "include_dashboard": False, "ray_client_server_port": port}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.client = f"ray://127.0.0.1:{port}"
        yield made
        made.shutdown()


def start(folder: Path, address: str, seeds: int, *changes: str) -> subprocess.Popen[str]:
    command = [sys.executable, *COMMAND.split(), f"--seeds={seeds}", f"--on={address}", *changes]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def written(store: Store) -> dict[str, int]:
    """When each record was written."""
    return {key: store.path(key).stat().st_mtime_ns for key in store.present()}


def test_driver_and_node_die_and_every_cell_is_run_once(store: Store, cluster: Any) -> None:
    second, folder = cluster.add_node(**NODE), store.folder.parent
    with (folder / "pool_models.py").open("a") as models:
        models.write(HELD.format(folder=str(folder)))
    call = (folder, f"ray:{cluster.address}", 5, "--model=pool_models:held")
    runs = 5 * PER_SEED
    killed = start(*call)
    wait_until(lambda: len(store.present()) >= 8, killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = written(store)
    assert 8 <= len(before) < runs

    again = start(*call)
    wait_until(lambda: len(store.present()) >= len(before) + 8, again)
    (folder / "hold").write_text(second.node_id)
    wait_until((folder / "held").exists, again)  # the node dies at work
    assert len(store.present()) < runs
    cluster.remove_node(second, allow_graceful=False)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert before.items() <= written(store).items()  # nothing was run again
    records = store.records()
    assert len(records) == runs
    cells = [Cell.from_dict(record["cell"]) for record in records]
    assert {one["key"]: comparable(one) for one in records} == expected(cells)


def test_a_client_of_the_cluster(store: Store, cluster: Any) -> None:
    process = start(store.folder.parent, cluster.client, 1)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(store.present()) == PER_SEED


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(
    store: Store, cluster: Any
) -> None:
    seeds = 20  # of short cells, many of which end while the driver does
    call = (store.folder.parent, f"ray:{cluster.address}", seeds, "--steps=1")
    process = start(*call)
    wait_until(lambda: len(store.present()) >= 4, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    before = written(store)
    assert 4 <= len(before) < seeds * PER_SEED
    again = start(*call)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert before.items() <= written(store).items()
    assert len(store.present()) == seeds * PER_SEED


def test_a_thousand_short_cells_give_the_records_of_the_pool(store: Store, cluster: Any) -> None:
    cluster.add_node(**NODE)
    folder, seeds = store.folder.parent, 112
    pooled = Store(folder / "pooled")
    for address, changes in ((f"ray:{cluster.address}", ()), ("local", ("--store=pooled",))):
        process = start(folder, address, seeds, "--steps=1", *changes)
        _, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
    records, others = (
        {one["key"]: comparable(one) for one in of.records()} for of in (store, pooled)
    )
    assert len(records) == seeds * PER_SEED
    assert records == others
