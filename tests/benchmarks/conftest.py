"""Make `benchmarks`, which is not installed, importable; and results that nobody measured."""

import load_benchmarks  # noqa: F401
from unmeasured import results  # noqa: F401
