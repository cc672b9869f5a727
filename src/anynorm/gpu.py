"""The GPU kernels, which must be enabled: they have not run on a GPU yet."""

from __future__ import annotations

from anynorm.kernels import cuda

__all__ = ["enable", "enabled"]


def enable() -> None:
    """Let layers and operators take the GPU kernels for tensors on a GPU, in this process.

    Before that they run torch's operators there.  ``ANYNORM_GPU=1`` in the environment enables the
    kernels at import, where there are any.

    Raises:
        AnynormError: There are no GPU kernels here; the message says why.

    Example:
        >>> import anynorm
        >>> try:
        ...     anynorm.gpu.enable()
        ... except anynorm.AnynormError:
        ...     pass  # this torch is built without CUDA, or Triton is missing
    """
    cuda.enable()


def enabled() -> bool:
    """Whether tensors on a GPU take the kernels.

    Returns:
        Whether :func:`enable` was called, or ``ANYNORM_GPU=1`` was set at import.

    Example:
        >>> import anynorm
        >>> anynorm.gpu.enabled() in (True, False)
        True
    """
    return cuda.enabled()
