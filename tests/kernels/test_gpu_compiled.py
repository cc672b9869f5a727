"""What the compiler makes of the GPU kernels, for GPUs that are not there.

Another process compiles them: Triton asks once whether it is to interpret kernels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import load_benchmarks  # noqa: F401
import pytest
from benchmarks import ROOT
from on_device import needs_triton

pytestmark = [
    needs_triton,
    pytest.mark.skipif(sys.platform != "linux", reason="Triton brings its tools for Linux alone"),
]

# Bytes of a thread, at most.  Where 1,024 threads share the registers of a unit, each has 64, and
# the values of a long row and what is computed beside them take more.
SPILLED = {
    ("layer 4096x16384 bfloat16", "whole"): 32,
    ("layer 4096x16384 float32", "whole"): 288,
    ("layer 1024x65536 bfloat16", "whole"): 320,
    ("layer 1024x65536 float32", "whole"): 480,
    ("rms 1024x65536 bfloat16", "whole"): 192,
    ("batch 256x2048x7x7 bfloat16 add relu", "whole"): 48,
    ("group 64x32x8x56x56 bfloat16 silu", "whole"): 48,
}
# What is left of Ampere's: tiles of float32 on their way take registers beside shared memory.
SPILLED_BEFORE_HOPPER = {
    ("batch 256x64x112x112 float32 relu", "moments"): 1792,
    ("batch 256x512x28x28 float32 relu", "moments"): 1792,
    ("batch 256x64x112x112 bfloat16 channels_last relu", "normalize"): 16,
    ("batch 256x512x28x28 bfloat16 add relu", "apply"): 16,
}


def used(arch, only, folder):
    """What each kernel of the cases uses; compiled anew."""
    found = folder / "found.json"
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.resources", "--arch", str(arch), "--only", only]
    done = subprocess.run(
        [*command, "--json", str(found)],
        cwd=ROOT,
        env=kept | {"TRITON_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(found.read_text("utf-8"))


def test_rows_compile(tmp_path):
    found = used(90, "^rms 131072x512 ", tmp_path)
    kernels = [use["kernel"] for use in found]
    assert kernels == ["whole", "whole"]  # forward and backward
    assert [use["spilled"] for use in found] == [0, 0]
    assert [use["widest"] for use in found] == [16, 16]


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
def test_every_case_compiles_and_keeps_its_values_in_registers(arch, tmp_path):
    from benchmarks.resources import CASES

    allowed = SPILLED | (SPILLED_BEFORE_HOPPER if arch < 90 else {})
    found = used(arch, "", tmp_path)
    assert {use["case"] for use in found} == set(map(str, CASES))
    for use in found:
        name = use["case"], use["kernel"]
        assert use["spilled"] <= allowed.get(name, 0), name
        assert 0 < use["registers"] <= 255


def test_interpreted_kernels_are_not_compiled(monkeypatch):
    from benchmarks import resources

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(SystemExit, match="unset it"):
        next(resources.used(resources.CASES[0]))
