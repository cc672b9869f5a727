"""What the tests of the benchmark share."""

from gpu_double import gpu  # noqa: F401
