"""Kernels for GPUs, in Triton.  Importing this imports Triton."""
