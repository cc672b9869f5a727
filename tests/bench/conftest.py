"""What the tests of the benchmark share."""

from unmeasured import results  # noqa: F401
