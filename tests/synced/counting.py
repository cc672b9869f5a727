"""Which collectives a piece of code calls, and of how many bytes, as the benchmark counts them."""

import load_benchmarks  # noqa: F401
from benchmarks.sync import Counting

__all__ = ["Counting"]
