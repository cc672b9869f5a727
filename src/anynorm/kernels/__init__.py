"""The kernels. Importing this package finds and loads those for the CPU, once.

The kernels register themselves with torch's dispatcher.  Those for GPUs do so when they are
enabled; Triton compiles them at the first call (:mod:`anynorm.kernels.cuda`).  Without kernels the
operators run their plain-PyTorch implementation.  These environment variables are read at import:

- ``ANYNORM_KERNELS=0`` disables all kernels; ``=1`` raises an error if the CPU kernels are missing.
- ``ANYNORM_GPU=1`` enables the GPU kernels where there are any (:mod:`anynorm.gpu`).
- ``ANYNORM_ISA=baseline|avx2|avx512`` selects an instruction set; the default is the CPU's best.
- ``ANYNORM_HUGE_PAGES=0|1`` says whether large outputs request huge pages.
- ``ANYNORM_LIBRARY`` is the path of another library file, such as that of ``make sanitize``.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch
from torch import Tensor

from anynorm.errors import AnynormError, UnknownNameError
from anynorm.kernels import cuda
from anynorm.kernels.allocator import allocator_setting, tune_allocator
from anynorm.kernels.environment import switch

__all__ = [
    "allocator_setting",
    "available",
    "cuda",
    "huge_pages",
    "isa",
    "on_device_of",
    "served",
    "tune_allocator",
    "why_not",
]

_HERE = Path(__file__).parent
_ISAS = ("baseline", "avx2", "avx512")
_HUGE_PAGES_BY_DEFAULT = True
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def available() -> bool:
    """Whether the kernels are loaded."""
    return _library is not None


def on_device_of(x: Tensor) -> bool:
    """Whether there are kernels for the device of `x`."""
    return _ON_CPU if x.is_cpu else x.is_cuda and cuda.enabled()


def served(x: Tensor) -> bool:
    """Whether there are kernels for the device and the type of `x`."""
    return on_device_of(x) and (x.dtype in _TYPES or (x.is_cpu and x.dtype == torch.float64))


def why_not() -> str | None:
    """Return why the kernels are not loaded, and what to do; ``None`` if they are loaded."""
    return _why_not


def isa() -> str | None:
    """Return the instruction set in use: baseline, avx2 or avx512; ``None`` without kernels."""
    if _library is None:
        return None
    name: bytes = _library.anynorm_isa()
    return name.decode()


def huge_pages() -> bool:
    """Whether the kernels request huge pages for large outputs."""
    wanted = switch("ANYNORM_HUGE_PAGES")
    return available() and (_HUGE_PAGES_BY_DEFAULT if wanted is None else wanted)


def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """Return the library (or ``None``), and the reason if there is none."""
    wanted = switch("ANYNORM_KERNELS")
    if wanted is False:
        return None, "ANYNORM_KERNELS=0 leaves them out"
    library, why_not = _open(Path(os.environ.get("ANYNORM_LIBRARY") or _HERE / "_kernels.so"))
    if wanted and library is None:
        raise AnynormError(f"ANYNORM_KERNELS=1 asks for the CPU kernels, but {why_not}.")
    return library, why_not


def _open(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    """Load a library; return ``None`` and the reason if it cannot be loaded."""
    if not path.is_file():
        return None, _why_not_built(path)
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
        library = ctypes.CDLL(str(path))
        library.anynorm_isa.restype = ctypes.c_char_p
    except (OSError, AttributeError, RuntimeError) as error:
        return None, f"{path} cannot be loaded: {error.__cause__ or error}"
    return library, None


def _why_not_built(path: Path) -> str:
    note = path.with_name("_why_not.txt")
    if not note.is_file():
        return f"there is no file {path}"
    return f"{note.read_text('utf-8')}; then install anynorm again (pip's --force-reinstall)"


def _check_isa(wanted: str) -> None:
    """Raise an error if the instruction set is unknown or the CPU lacks it."""
    if wanted and wanted not in _ISAS:
        raise UnknownNameError("instruction set (ANYNORM_ISA)", wanted, _ISAS)
    if wanted and isa() not in (None, wanted):
        raise AnynormError(
            f"ANYNORM_ISA={wanted} asks for an instruction set that this machine lacks; "
            f"its best is {isa()}. Unset it, or name a lower one."
        )


switch("ANYNORM_HUGE_PAGES")
if switch("ANYNORM_GPU") and cuda.available():
    cuda.enable()
_library, _why_not = _load()
_ON_CPU = available()
_check_isa(os.environ.get("ANYNORM_ISA", ""))
