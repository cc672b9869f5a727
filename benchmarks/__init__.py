"""Studies beside `anynorm bench`; each is ``python -m benchmarks.NAME``."""

from pathlib import Path

__all__ = ["RESULTS", "ROOT"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
