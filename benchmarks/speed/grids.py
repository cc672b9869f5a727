"""The registry: every case that is measured, from short descriptions, and how cases are chosen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from anynorm.bench.cases import DTYPES, LAYOUTS, Case, Shape, block
from anynorm.errors import AnynormError, UnknownNameError

__all__ = ["CASES", "GRIDS", "WEIGHTS", "compiles", "grid", "select"]

# Smaller inputs are not worth a compiler's call.
FEWEST_VALUES_TO_COMPILE = 100_000

# Shapes of residual networks; the first two are larger than most processors' caches.
IMAGES: tuple[Shape, ...] = (
    (64, 64, 56, 56), (128, 64, 32, 32), (32, 256, 14, 14), (16, 512, 7, 7)
)  # fmt: skip
SMALL_IMAGES: tuple[Shape, ...] = ((8, 64, 8, 8), (2, 3, 5, 5), (32, 257, 15, 15))
ROWS: tuple[Shape, ...] = ((12544, 1024), (4096, 4096), (256, 128), (64, 64), (1000, 257), (7, 5))
WEIGHTS: tuple[Shape, ...] = ((512, 512, 3, 3), (64, 64, 3, 3))
TWO = (IMAGES[0], IMAGES[2])
FUSIONS = ("plain", "relu", "add+relu")
NCHW = LAYOUTS[:1]

CASES: tuple[Case, ...] = (
    *block("batch", IMAGES + SMALL_IMAGES, fusions=FUSIONS),
    *block("group instance", IMAGES + SMALL_IMAGES),
    *block("group instance", TWO, fusions=("relu",)),
    *block("batch", TWO, NCHW, fusions=("silu", "gelu")),
    *block("layer rms batch1d", ROWS, NCHW),
    *block("batch1d", ((4096, 4096), (256, 128)), NCHW, fusions=FUSIONS[1:]),
    *block("layer", ((4096, 4096), (256, 128)), NCHW, fusions=("gelu",)),
    *block("batch", TWO, dtype="bf16", fusions=FUSIONS),
    *block("group instance", TWO, dtype="bf16"),
    *block("layer rms batch1d", ROWS[1:3], NCHW, dtype="bf16"),
    *block("batch", TWO, fusions=FUSIONS, phases=("evaluation",)),
    *block("l1-batch linf-batch filter-response pixel batch-renorm", TWO),
    *block("scale gemma-rms llama-rms", ROWS[1:3], NCHW),
    *block("scale gemma-rms llama-rms", ROWS[1:3], NCHW, dtype="bf16"),
    *block("weight weight-standardization", WEIGHTS, NCHW),
)
QUICK = ((32, 256, 14, 14), (8, 64, 8, 8), (4096, 4096), (256, 128))

# The goals on a GPU. Rows of 512 to 65,536 values, in tensors of 0.25 and 2 GB.
WIDTHS = tuple(512 << power for power in range(8))
TENSORS = (1 << 28, 1 << 31)
# What ResNet-50 normalizes at a batch of 256; of the shapes that repeat, one for each stage.
RESNET: tuple[Shape, ...] = tuple(
    (256, channels, side, side)
    for side, widths in ((112, (64,)), (56, (64, 256)), (28, (128, 512)), (14, (256, 1024)),
                         (7, (512, 2048)))
    for channels in widths
)  # fmt: skip
ENDS = tuple(shape for shape in RESNET if shape[1] in (256, 512, 1024, 2048) and shape[2] != 14)
# What a diffusion model's U-Net normalizes by groups, in batches of 8.
DIFFUSION: tuple[Shape, ...] = ((8, 320, 64, 64), (8, 640, 32, 32), (8, 1280, 16, 16))
PEER_WIDTHS = (4096, 1024, 16384)
# From 8 to 32 MB in bf16, which the cache of a large GPU holds.
IN_CACHE: tuple[Shape, ...] = ((4096, 1024), (2048, 4096), (4096, 4096))
# Where the launch of a kernel takes longer than the kernel.
TINY_ROWS: tuple[Shape, ...] = ((8, 64), (32, 768), (128, 1024), (512, 4096))
TINY_IMAGES: tuple[Shape, ...] = ((2, 16, 8, 8), (8, 64, 8, 8), (16, 64, 32, 32))


def _rows(dtype: str) -> tuple[Case, ...]:
    itemsize = DTYPES[dtype].itemsize
    shapes = [(size // itemsize // width, width) for size in TENSORS for width in WIDTHS]
    return tuple(block("layer rms", shapes, NCHW, dtype))


def _images(dtype: str) -> tuple[Case, ...]:
    fused = block("batch", RESNET, dtype=dtype, fusions=FUSIONS)
    return (*fused, *block("group instance", ENDS, dtype=dtype))


def _launch(dtype: str) -> tuple[Case, ...]:
    rows = block("layer rms batch1d", TINY_ROWS, NCHW, dtype)
    fused = block("batch", TINY_IMAGES, dtype=dtype, fusions=FUSIONS)
    return (*rows, *fused, *block("group instance", TINY_IMAGES, dtype=dtype))


def _peers(dtype: str) -> tuple[Case, ...]:
    shapes = [(TENSORS[0] // DTYPES[dtype].itemsize // width, width) for width in PEER_WIDTHS]
    rows = block("rms layer", shapes, NCHW, dtype, phases=("both",))
    return (*rows, *block("batch", ENDS[:2], dtype=dtype, fusions=FUSIONS, phases=("both",)))


_TYPES = ("bf16", "fp32")
GRIDS: dict[str, tuple[Case, ...]] = {
    "full": CASES,
    "small": tuple(case for case in CASES if case.shape in QUICK and case.dtype == "fp32"),
    "rows": tuple(case for dtype in _TYPES for case in _rows(dtype)),
    "images": tuple(case for dtype in _TYPES for case in _images(dtype)),
    "launch": tuple(case for dtype in _TYPES for case in _launch(dtype)),
    "group-silu": tuple(
        case
        for dtype in _TYPES
        for case in block("group", DIFFUSION, LAYOUTS[1:], dtype, fusions=("silu",))
    ),
    "peers": tuple(case for dtype in _TYPES for case in _peers(dtype)),
    "cache": tuple(block("layer rms", IN_CACHE, NCHW, "bf16")),
}
GRIDS["goals"] = (*GRIDS["rows"], *GRIDS["images"], *GRIDS["launch"])


def grid(name: str) -> tuple[Case, ...]:
    """Return the cases of a grid; raises `UnknownNameError` for a name that is not in `GRIDS`.

    >>> grid("rows")[0].name
    'layer/contiguous/262144x512/bf16/plain/forward'
    """
    if name not in GRIDS:
        raise UnknownNameError("grid", name, GRIDS)
    return GRIDS[name]


def compiles(case: Case) -> bool:
    """Whether compilers take part in a case."""
    return case.values >= FEWEST_VALUES_TO_COMPILE and case.phase != "evaluation"


def select(cases: Iterable[Case], only: str = "", **wanted: Sequence[str] | None) -> list[Case]:
    """Keep the cases that have one of the values `wanted` of a field, by the field's name.

    In their names the regular expression `only` must be found.  Raises `UnknownNameError` for a
    value that none of the cases has.

    >>> cases = block("layer rms", [(4, 8)], ("contiguous",))
    >>> [case.name for case in select(cases, normalizer=["rms"], phase=["both"])]
    ['rms/contiguous/4x8/fp32/plain/both']
    """
    found = list(cases)
    for field, values in wanted.items():
        known = {getattr(case, field) for case in found}
        for value in values or ():
            if value not in known:
                raise UnknownNameError(f"{field} in these cases", value, known)
    try:
        pattern = re.compile(only)
    except re.error as error:
        raise AnynormError(f"only={only!r} is no regular expression: {error}.") from error
    return [case for case in found if pattern.search(case.name) and _has(case, wanted)]


def _has(case: Case, wanted: Mapping[str, Sequence[str] | None]) -> bool:
    return all(not values or getattr(case, field) in values for field, values in wanted.items())
