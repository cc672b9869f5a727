"""The packages that only the study needs; if one is missing, the error names the fix."""

from __future__ import annotations

from importlib.util import find_spec

from anynorm.errors import AnynormError

__all__ = ["require"]

# A module of each package, and what to install for it.
_STUDY = "pip install 'anynorm[study]'"
_INSTALL = {
    "torchvision": "pip install torchvision",
    "ray": "pip install 'anynorm[ray]'",
    "grpc": "pip install 'anynorm[ray]'",
    "submitit": "pip install 'anynorm[slurm]'",
    "fsspec": "pip install fsspec",
}


def require(module: str, purpose: str) -> None:
    """Raise `AnynormError` if the package that has `module` is not installed.

    >>> require("torch", "the layers")
    """
    if find_spec(module) is None:
        fix = _INSTALL.get(module, _STUDY)
        raise AnynormError(f"{purpose} needs {module}, which is not installed. Run: {fix}")
