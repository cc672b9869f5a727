"""The documented example, as torchrun starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch import distributed as dist

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")
def test_torchrun_trains_with_the_same_statistics_everywhere():
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", *torchrun, str(ROOT / "examples" / "train_synced.py")]
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"rank (\d): .* accuracy ([\d.]+), \|running mean\| (.*)", done.stdout)
    assert sorted(rank for rank, _, _ in found) == ["0", "1"]
    assert all(float(accuracy) > 0.9 for _, accuracy, _ in found)
    assert found[0][2] == found[1][2]
