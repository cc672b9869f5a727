"""Make `benchmarks`, which is not installed, importable; results that nobody measured; a GPU."""

import load_benchmarks  # noqa: F401
from gpu_double import gpu  # noqa: F401
from unmeasured import results  # noqa: F401
