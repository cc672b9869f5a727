"""Records as a table: one row for each run, one column for each number."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import TYPE_CHECKING, Any

from anynorm.study.cell import label
from anynorm.study.extras import require
from anynorm.study.readable import readable
from anynorm.study.store import Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame", "write_parquet"]

_AXES = ("step", "layers", "kinds")


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """A DataFrame with the cell's fields, ``final.*``, ``cost.*`` and the mean of each probe.

    The probe columns, such as ``landscape.loss_range``, average over steps and layers.
    """
    require("pandas", "a data frame")
    import pandas as pd

    return pd.DataFrame([_row(record) for record in readable(records).records])


def write_parquet(records: Iterable[Record], path: str | os.PathLike[str]) -> None:
    """Write `frame(records)` as a Parquet file."""
    require("pyarrow", "a Parquet file")
    frame(records).to_parquet(path, index=False)


def _row(record: Record) -> dict[str, Any]:
    cell = record["cell"]
    row = {"key": record.get("key"), "label": label(cell), **cell}
    row["norm_options"] = json.dumps(dict(cell.get("norm_options", ())))
    row |= {name: record.get(name) for name in ("task", "status", "diverged_at")}
    for part in ("final", "cost"):
        row |= {f"{part}.{name}": value for name, value in (record.get(part) or {}).items()}
    return row | dict(_means("", record.get("probes") or {}))


def _means(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _means(f"{prefix}{name}.", value)
        elif name not in _AXES:
            numbers = list(_numbers(value))
            yield f"{prefix}{name}", fmean(numbers) if numbers else math.nan


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and math.isfinite(value):
        yield value
