"""Compile the GPU kernels for a GPU that is not there, and print what they take of it.

    python -m benchmarks.resources [--only 'layer.*bf16'] [--arch 90] [--json FILE] [--page]

For each case every launch of forward and backward, as the operators would make it: registers and
spilled bytes of a thread, shared memory of a program, and how many bytes the widest reads and
writes of global memory have.  Nothing runs, and nothing here is a time.  `--page` writes the
table of docs/gpu.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import ROOT
from benchmarks.page import fill

__all__ = ["CASES", "Case", "Use", "main", "table", "used"]

UNITS = 132  # multiprocessors of an H100 or H200


class Case(NamedTuple):
    """A normalizer, its input, and what is fused with it."""

    normalizer: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.bfloat16
    channels_last: bool = False
    phi: str = "identity"
    added: bool = False

    def __str__(self) -> str:
        parts = [self.normalizer, "x".join(map(str, self.shape)), str(self.dtype)[6:]]
        parts += ["channels_last"] if self.channels_last else []
        parts += ["add"] if self.added else []
        return " ".join(parts + ([self.phi] if self.phi != "identity" else []))


class Use(NamedTuple):
    """What a thread (a program for `shared`) takes, in bytes but for the registers.

    `staged`: its writes to shared memory, many of which tell of tiles that change their layout.
    """

    case: str
    kernel: str
    warps: int
    registers: int
    spilled: int
    shared: int
    widest: int
    staged: int


HALF, FULL = torch.bfloat16, torch.float32
CASES = [
    *(
        Case("layer", (1 << 26 >> w, 1 << w), dtype)
        for w in (9, 12, 14, 16)
        for dtype in (HALF, FULL)
    ),
    *(Case("rms", (1 << 26 >> w, 1 << w), HALF) for w in (9, 12, 14, 16)),
    *(
        Case("batch", shape, dtype, last, "relu", added)
        for shape in ((256, 64, 112, 112), (256, 512, 28, 28), (256, 2048, 7, 7))
        for dtype, last, added in ((HALF, False, True), (HALF, True, False), (FULL, False, False))
    ),
    Case("instance", (64, 64, 128, 128)),
    Case("instance", (64, 64, 128, 128), HALF, True),
    Case("group", (64, 32, 8, 56, 56), HALF, False, "silu"),
    Case("l1", (256, 64, 56, 56)),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a regular expression for cases")
    parser.add_argument("--arch", type=int, default=90, help="compute capability; 90 is Hopper's")
    parser.add_argument("--json", type=Path, help="where to write them too")
    parser.add_argument("--page", action="store_true", help="write the table of docs/gpu.md")
    options = parser.parse_args()
    found: list[Use] = []
    for case in (case for case in CASES if re.search(options.only, str(case))):
        for use in used(case, options.arch):
            found.append(use)
            print("  ".join(f"{name} {value}" for name, value in use._asdict().items()), flush=True)
    if options.json:
        told = json.dumps([use._asdict() for use in found], indent=1)
        options.json.write_text(told + "\n", "utf-8")
    if options.page:
        fill(ROOT / "docs" / "gpu.md", "resources", table(found))


def table(found: Sequence[Use]) -> str:
    """Return a line for each case: its kernels with warps, registers and what is spilled."""
    lines = [
        "| case | kernels: warps × registers (bytes spilled) | widest access |",
        "|---|---|---|",
    ]
    for case, group in itertools.groupby(found, lambda use: use.case):
        uses = list(group)
        told = ", ".join(
            f"{use.kernel.strip('_')} {use.warps} × {use.registers}"
            + (f" ({use.spilled})" if use.spilled else "")
            for use in uses
        )
        lines.append(f"| {case} | {told} | {max(use.widest for use in uses)} bytes |")
    return "\n".join(lines)


def used(case: Case, arch: int = 90) -> Iterator[Use]:
    """Compile what forward and backward of a case launch; yield what each kernel uses."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise SystemExit("TRITON_INTERPRET=1 interprets kernels: unset it to compile them.")
    from triton.runtime import driver

    from anynorm.kernels.triton import call

    absent = _Absent(arch)
    driver.set_active(absent)
    call._INTERPRETED_UNITS = UNITS
    _launch(case)
    for name, cubin, shared in absent.utils.loaded:
        yield Use(str(case), name, _warps(cubin), *_resources(cubin), shared, *_accesses(cubin))


def _launch(case: Case) -> None:
    """Forward and backward on memory that is never read or written."""
    from anynorm.kernels.triton import operators

    axes = range(len(case.shape))
    dims, along = {
        "layer": ([axes[-1]], [axes[-1]]),
        "rms": ([axes[-1]], [axes[-1]]),
        "instance": ([*axes[2:]], [1]),
        "group": ([*axes[2:]], [1, 2]),
    }.get(case.normalizer, ([0, *axes[2:]], [1]))
    memory = torch.channels_last if case.channels_last else torch.contiguous_format
    x = torch.empty(case.shape, dtype=case.dtype, memory_format=memory)
    gain = torch.empty([size if axis in along else 1 for axis, size in enumerate(case.shape)])
    shift = None if case.normalizer == "rms" else gain
    residual = torch.empty_like(x) if case.added else None
    center, p = case.normalizer != "rms", 1.0 if case.normalizer == "l1" else 2.0
    rest = (dims, center, center, p, 1.0, 1e-5, case.phi)
    y, mean, square, sign_mask = operators.standardize(x, residual, gain, shift, *rest)
    operators.standardize_backward(y, x, None, sign_mask, mean, square, gain, shift, *rest)


def _warps(cubin: bytes) -> int:
    threads = re.search(r"EIATTR_REQNTID\s+Format:\s+\S+\s+Value:\s+(\w+)", _dump("-elf", cubin))
    assert threads is not None
    return int(threads[1], 16) // 32


def _resources(cubin: bytes) -> tuple[int, int]:
    found = re.search(r"REG:(\d+) STACK:(\d+)", _dump("--dump-resource-usage", cubin))
    assert found is not None
    return int(found[1]), int(found[2])


def _accesses(cubin: bytes) -> tuple[int, int]:
    """Bytes of the widest access to global memory, and how many writes to shared memory."""
    code = _dump("-sass", cubin)
    widths = re.findall(r"(?:LDG|LDGSTS|STG)\.E(?:\.\w+)*?\.(\d+)[. ]", code)
    return max((int(width) // 8 for width in widths), default=4), len(re.findall(r"\bSTS", code))


def _dump(what: str, cubin: bytes) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), what, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class _Utils:
    """What Triton's driver calls when it has compiled a kernel; it keeps the binaries."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, bytes, int]] = []

    def get_device_properties(self, _: int) -> dict[str, int]:
        return {"max_shared_mem": 232448, "multiprocessor_count": UNITS, "warpSize": 32}

    def load_binary(self, name: str, cubin: bytes, shared: int, _: int) -> tuple[int, ...]:
        self.loaded.append((name, cubin, shared))
        return 0, 0, 0, 0, 1024


class _Absent:
    """A driver for a device on which launches do nothing."""

    def __init__(self, arch: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.utils = _Utils()
        self._target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    class launcher_cls:  # noqa: N801 - Triton's name
        def __init__(self, *_: Any) -> None:
            pass

        def __call__(self, *_: Any) -> None:
            pass


if __name__ == "__main__":
    main()
