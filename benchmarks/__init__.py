"""Studies beside `anynorm bench`; each is ``python -m benchmarks.NAME``."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("ANYNORM_GPU", "1")  # before anynorm is imported: they measure these kernels

from anynorm.errors import AnynormError

__all__ = ["RESULTS", "ROOT", "script"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def script(main: Callable[[], None]) -> None:
    """Run a study from the command line, where an error of ours is a line, not a traceback."""
    try:
        main()
    except AnynormError as error:
        raise SystemExit(str(error)) from None
