"""DDP's join that ends an epoch on all ranks as soon as one of them has run out of batches."""

from contextlib import nullcontext

import pytest
import torch
from ranks import on_ranks
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import anynorm

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")

SHORTER = 2
LATER = 9


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), anynorm.SyncBatchNorm(4))


def step(model, rank, index):
    """Train on a batch of this rank's own, one sample larger on each rank than on the last."""
    made = torch.Generator().manual_seed(100 * index + rank)
    x = torch.randn(2 + rank, 3, 4, 4, generator=made)
    y = model(x)
    model.zero_grad()
    y.backward(torch.randn(y.shape, generator=made))
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def epoch(model, rank, batches, context):
    """What is said at its end."""
    try:
        with context:
            for index in range(batches):
                step(model, rank, index)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def trained(rank, batches, joined):
    """What is said at the end of the epoch, and the state after one more step outside of it."""
    model = DistributedDataParallel(network())
    context = model.join(throw_on_early_termination=True) if joined else nullcontext()
    said = epoch(model, rank, batches, context)
    step(model, rank, LATER)
    return said, {name: value.clone() for name, value in model.module.state_dict().items()}


def of_rank(rank, size):
    return {
        "plain": trained(rank, SHORTER, joined=False),
        "even": trained(rank, SHORTER, joined=True),
        "uneven": trained(rank, SHORTER + rank, joined=True),
        "refused": refused(rank),
    }


def refused(rank):
    """What join says that does not end early, and the model then, wrapped again."""
    model = DistributedDataParallel(network())
    said = [epoch(model, rank, 1, context) for context in (model.join(), nullcontext())]
    return [*said, epoch(DistributedDataParallel(model.module), rank, 1, nullcontext())]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return on_ranks(2, of_rank, tmp_path_factory.mktemp("ranks"))


def test_every_rank_is_told_when_one_has_run_out(found):
    first, second = (of["uneven"][0] for of in found)
    assert first == "RuntimeError: Rank 0 exhausted all inputs."
    assert second.startswith("RuntimeError: Detected at least one rank that exhausted inputs.")


@pytest.mark.parametrize("how", ["even", "uneven"])
def test_what_was_trained_until_then_is_kept_and_can_go_on(how, found):
    assert [(of["plain"][0], of["even"][0]) for of in found] == [("no error",) * 2] * 2
    for of in found:
        (_, expected), (_, state) = of["plain"], of[how]
        assert int(state["1.num_batches_tracked"]) == SHORTER + 1
        assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_after_a_join_that_is_refused_the_model_is_wrapped_anew(found):
    for *still, anew in (of["refused"] for of in found):
        assert all("throw_on_early_termination=True" in said for said in still)
        assert anew == "no error"


def of_compiled_rank(rank, size):
    """Its graph is compiled before join, so that the layers' own refusal is not called again."""
    graph = torch.compile(network(), fullgraph=True, backend="aot_eager")
    model = DistributedDataParallel(graph)
    for index in range(3):
        step(model, rank, index)
    return epoch(model, rank, SHORTER + rank, model.join())


@pytest.mark.slow
def test_a_graph_from_before_join_waits_no_longer_than_the_timeout(tmp_path):
    assert all("Error: " in said for said in on_ranks(2, of_compiled_rank, tmp_path, timeout=8))
