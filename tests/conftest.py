"""What every test shares."""

import sys

import pytest
import torch

torch.set_num_threads(1)  # the tests themselves run in parallel


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Compile from scratch in each test: torch counts recompilations over a whole process."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
