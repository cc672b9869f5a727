"""GPU kernels: there if they can be, registered at the import, loaded at the first call."""

from __future__ import annotations

import importlib.util
import types

import pytest
import torch
from test_loading import python

from anynorm.kernels import cuda

# torch for CUDA, as far as the import of anynorm looks at it.
FOR_CUDA = "import sys, torch; torch.version.cuda = '13.0'; from anynorm.kernels import cuda; "
HAS_KERNEL = "torch._C._dispatch_has_kernel_for_dispatch_key(f'anynorm::{name}', 'CUDA')"


@pytest.fixture(autouse=True)
def asked_anew():
    cuda.why_not.cache_clear()
    yield
    cuda.why_not.cache_clear()


@pytest.fixture
def everything(monkeypatch):
    """A torch for CUDA, and Triton."""
    monkeypatch.delenv("ANYNORM_KERNELS", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: types.SimpleNamespace(name=name))


def test_kernels_are_available_for_cuda_and_rocm(everything, monkeypatch):
    assert cuda.why_not() is None
    assert cuda.available()
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    cuda.why_not.cache_clear()
    assert cuda.available()


def test_they_can_be_left_out(everything, monkeypatch):
    monkeypatch.setenv("ANYNORM_KERNELS", "0")
    assert cuda.why_not() == "ANYNORM_KERNELS=0 leaves them out"
    assert not cuda.available()


def test_torch_must_be_built_for_gpus(everything, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert cuda.why_not() == "this torch is built without CUDA and ROCm"
    assert not cuda.available()


def test_triton_must_be_installed(everything, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cuda.why_not() == "Triton is not installed: pip install triton"
    assert not cuda.available()


def test_operators_are_imported_once_at_the_first_call(monkeypatch):
    imported = []

    def load(name):
        imported.append(name)
        return types.SimpleNamespace(moments=lambda *args: sum(args))

    monkeypatch.setattr(cuda.importlib, "import_module", load)
    stub = cuda._at_first_call("moments")
    assert imported == []
    assert (stub(1, 2), stub(3, 4)) == (3, 7)
    assert imported == ["anynorm.kernels.triton.operators"]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_every_stub_has_its_operator():
    from anynorm.kernels.triton import operators

    assert set(cuda.OPERATORS) == set(operators.__all__)


def report(code, **environment):
    done = python(FOR_CUDA + code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


STATE = f"cuda.enabled(), all({HAS_KERNEL} for name in cuda.OPERATORS)"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@needs_triton
def test_the_import_neither_registers_nor_loads_them():
    code = f"import anynorm; print('anynorm.kernels.triton' in sys.modules, {STATE})"
    assert report(code, ANYNORM_GPU="") == "False False False"


@needs_triton
def test_they_are_enabled_by_a_call_and_loaded_by_none():
    code = f"import anynorm; anynorm.gpu.enable(); anynorm.gpu.enable(); print({STATE}"
    code += ", 'anynorm.kernels.triton' in sys.modules, anynorm.gpu.enabled())"
    assert report(code, ANYNORM_GPU="") == "True True False True"


@needs_triton
def test_they_are_enabled_by_the_environment():
    # The import of the package `anynorm.kernels` reads the variable.
    assert report(f"print({STATE})", ANYNORM_GPU="1") == "True True"


def test_where_they_are_left_out_the_environment_enables_none_and_a_call_says_why():
    code = (
        f"print(cuda.enabled(), any({HAS_KERNEL} for name in ('standardize', 'track_')))\n"
        "import anynorm\ntry: anynorm.gpu.enable()\nexcept anynorm.AnynormError as e: print(e)"
    )
    assert report(code, ANYNORM_KERNELS="0", ANYNORM_GPU="1") == (
        "False False\nthere are no GPU kernels to enable: ANYNORM_KERNELS=0 leaves them out."
    )
