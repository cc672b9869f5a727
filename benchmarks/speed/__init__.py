"""The layers beside every peer, in every case; run by ``python -m benchmarks.speed``."""
