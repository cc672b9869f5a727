"""What every test shares."""

import os
import sys

import pytest
import torch

torch.set_num_threads(1)  # the tests themselves run in parallel
if torch.cuda.is_available():  # before anything imports anynorm or Triton, which ask for it once
    os.environ.setdefault("ANYNORM_GPU", "1")
else:
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Compile from scratch in each test: torch counts recompilations over a whole process."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture
def pays_from(monkeypatch):
    """Set from how many values on our kernels are taken; from the first where a step is fused."""

    def set_all(least):
        from anynorm.ops import dispatch_thresholds  # here, so that other tests need not import it

        tables = (
            dispatch_thresholds.TABLE,
            dispatch_thresholds.SMALLEST,
            dispatch_thresholds.GPU_TABLE,
            dispatch_thresholds.GPU_SMALLEST,
        )
        for table in tables:
            for key in table:
                monkeypatch.setitem(table, key, dispatch_thresholds.Crossover(least))

    return set_all
