"""Lockstep on several processes: they agree at which layer batches go on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import on_ranks
from recomputed import furthest
from torch import Tensor, nn

import anynorm
from anynorm.surgery import recalibrate


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())


class Ways(nn.Module):
    """The rows of a batch say which way it goes; ranks meet layers in different orders."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.last = block(), block(), block()
        self.averaged = anynorm.create("l1-batch", 4)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 20:
            x = self.b(self.a(x))
        elif len(x) > 10:
            x = self.b(x)
        y: Tensor = self.averaged(self.last(x))
        return y


def data(*sizes: int) -> list[Tensor]:
    made = torch.Generator().manual_seed(sum(sizes))
    return [torch.randn(size, 4, generator=made) * 2 + size / 10 for size in sizes]


# The last rank has no batches, and the second one meets the layers in another order.
OF = (data(12, 30, 5), data(8, 25, 14, 22), [])
FAILS = 17


def model(kind: str) -> nn.Module:
    return Ways() if kind == "ways" else Recurrent()


class Recurrent(nn.Module):
    """One layer that is called several times, and one that only long batches reach."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.mix, self.long = nn.BatchNorm1d(4), nn.Linear(4, 4), block()
        self.mix.weight.data *= 0.3

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == FAILS:
            raise RuntimeError("seventeen rows")
        for _ in range(3):
            x = torch.tanh(self.norm(x + self.mix(x)))
        y: Tensor = self.long(x) if len(x) > 20 else x
        return y


CASES: tuple[tuple[str, float | None], ...] = (("ways", None), ("ways", 0), ("recurrent", 200))


def everything(rank: int, size: int) -> dict[str, Any]:
    """All cases in the same processes: to start them takes longer than to run them."""
    return {
        "results": {case: recomputed(rank, *case) for case in CASES},
        "fails": said(Recurrent(), [*data(25), *data(FAILS)] if rank == 1 else OF[0]),
        "is not finite": said(block(), [torch.full((5, 4), torch.inf)] if rank == 1 else OF[0]),
        "no batches": said(block(), []),
    }


def recomputed(rank: int, kind: str, memory: float | None) -> Any:
    found = recalibrate(model(kind), OF[rank], memory=memory)
    return found.model, found.receipt.facts["passes"]


def said(target: nn.Module, batches: list[Tensor]) -> str:
    """The error, and whether it left the model as it was."""
    before = {name: b.clone() for name, b in target.named_buffers()}
    try:
        recalibrate(target, batches, inplace=True)
    except anynorm.errors.AnynormError as error:
        same = all(torch.equal(b, before[name]) for name, b in target.named_buffers())
        return f"{error} {'unchanged' if same else 'changed'}"
    return "no error"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return on_ranks(3, everything, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(("kind", "memory"), CASES)
def test_ranks_with_other_batches(kind: str, memory: float | None, ranks: Any) -> None:
    found = [of["results"][kind, memory] for of in ranks]
    alone = recalibrate(model(kind), [x for part in OF for x in part])
    for new, passes in found:
        assert passes == found[0][1]
        assert furthest(new, found[0][0]) == 0
        assert furthest(new, alone.model) < 1e-6
    if kind == "ways":
        assert (found[0][1] == 1) == (memory is None)


def test_if_one_rank_fails_all_raise(ranks: Any) -> None:
    texts = [of["fails"] for of in ranks]
    assert "seventeen rows" in texts[1]
    assert all("failed on another process" in texts[rank] for rank in (0, 2))
    assert all(text.endswith(" unchanged") for text in texts)


def test_what_is_not_finite_on_one_rank_is_an_error_on_all(ranks: Any) -> None:
    assert all("what reaches '1' is not finite" in of["is not finite"] for of in ranks)


def test_no_batches_on_any_rank(ranks: Any) -> None:
    assert all("give at least one" in of["no batches"] for of in ranks)
