"""What the tests of the probes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anynorm.study.probes.objective import Objective
from anynorm.surgery.snapshot import preserved


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """With more, processes that share the cores wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def probe() -> Callable[..., Any]:
    """Calls ``measure(objective)`` and puts the model back."""

    def call(
        measure: Callable[[Objective], Any],
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        x: Tensor,
        y: Tensor,
    ) -> Any:
        with preserved(model, optimizer) as snapshot:
            return measure(Objective(snapshot, model, loss_fn, optimizer, x, y))

    return call
