"""Records as a table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from anynorm.study.cell import Cell
from anynorm.study.frame import frame, write_parquet


def record(seed: int, probes: dict[str, Any] | None) -> dict[str, Any]:
    cell = Cell(
        subject="<script>",
        data="digits",
        norm="group",
        norm_options=(("groups", 4),),
        lr=0.1,
        steps=10,
        seed=seed,
    )
    return {
        "key": cell.key,
        "cell": cell.to_dict(),
        "task": "classification",
        "status": "ok",
        "diverged_at": None,
        "final": {"test_accuracy": 0.5, "train_loss": None},
        "cost": {"bytes_for_backward": 12},
        "probes": probes,
    }


PROBES = {
    "landscape": {"step": [0, 9], "loss_range": [1.0, None]},
    "units": {"step": [0], "layers": ["a"], "dead": [[0.25, 0.75]], "percentiles": {"p15": []}},
}


def test_one_row_for_each_run() -> None:
    table = frame([record(0, PROBES), record(1, None)])
    assert table["label"].tolist() == ["group(groups=4)"] * 2
    assert table["seed"].tolist() == [0, 1]
    assert table["final.test_accuracy"].tolist() == [0.5, 0.5]
    assert table["landscape.loss_range"][0] == 1.0
    assert table["units.dead"][0] == 0.5
    assert math.isnan(table["units.percentiles.p15"][0])
    assert math.isnan(table["units.dead"][1])
    assert not [name for name in table if name.endswith((".step", ".layers"))]


def test_parquet_round_trip(tmp_path: Path) -> None:
    records = [record(0, PROBES), record(1, None)]
    write_parquet(records, tmp_path / "runs.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "runs.parquet"), frame(records))
