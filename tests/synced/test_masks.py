"""Several processes with masks compute what one does on the concatenated batch and mask."""

import pytest
import torch
from cases import CASES, CHANNELS, PARTS
from counting import Counting
from masks import poisoned
from ranks import on_ranks
from test_equality import check
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import anynorm

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")

KINDS = ("some", "nothing on a rank")


def mask_of(case, size, kind):
    """Of the whole batch; whitening takes the channels together.  No σ is that of a few values."""
    parts, channels = PARTS[size], 1 if case.name in ("zca", "pca") else CHANNELS
    made = torch.Generator().manual_seed(5)
    mask = torch.rand(sum(parts), channels, *case.positions, generator=made) < 0.7
    least = min((n, rank) for rank, n in enumerate(parts) if n)[1]
    for rank, part in enumerate(mask.split(parts)):
        if rank != least:
            part[: 2 if case.positions else None] = True
        elif kind != "some":
            part[:] = False
    return mask


class Padded:
    """A layer together with the mask that it is called with."""

    def __init__(self, layer, mask):
        self.layer, self.mask = layer, mask
        self.named_parameters, self.named_buffers = layer.named_parameters, layer.named_buffers

    def __call__(self, *given):
        return self.layer(*given, mask=self.mask)


def padded(case, size, kind):
    """Input, residual, cotangent and mask, with values not to be read."""
    mask, (x, residual, dy) = mask_of(case, size, kind), case.tensors(sum(PARTS[size]))
    poison = [poisoned(t, mask.expand_as(t)) for t in (x, residual)]
    laid = [case._laid(t) for t in poison]
    return *laid, dy, mask


def of_rank(rank, size):
    found = {}
    for index, case in enumerate(CASES):
        for kind in KINDS:
            *mine, mask = (t.split(PARTS[size])[rank] for t in padded(case, size, kind))
            found[index, kind] = case.run(Padded(case.layer(sync=True), mask), *mine)
    return found


def of_one(case, size, kind):
    """Far from zero in float64, of the values in float32, as without masks."""
    *given, mask = padded(case, size, kind)
    layer = case.layer().double() if case.far else case.layer()
    given = [t.double() for t in given] if case.far else given
    return case.run(Padded(layer, mask), *given)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_equal_one_process(size, tmp_path):
    found = on_ranks(size, of_rank, tmp_path)
    for index, case in enumerate(CASES):
        for kind in KINDS:
            check(case, [of[index, kind] for of in found], of_one(case, size, kind))


SIZE, LENGTH = 2, 7


class Net(nn.Module):
    """Padded sequences through two synchronised layers."""

    def __init__(self, sync=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(3, 4, 1)
        self.norm1 = anynorm.BatchNorm1d(4, sync=sync)
        self.norm2 = anynorm.create("l1-batch", 4, sync=sync, activation="relu")

    def forward(self, x, mask):
        y = self.norm1(self.conv(x), mask=mask)
        return self.norm2(y, y, mask)


def batch():
    made = torch.Generator().manual_seed(3)
    x, dy = (torch.randn(8, n, LENGTH, generator=made) for n in (3, 4))
    return x, dy, torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (8, 1), generator=made)


def part(rank):
    return tuple(t.split((3, 5))[rank] for t in batch())


def step(model, call, x, dy, mask):
    """Gradients and statistics after one batch."""
    call(x, mask).mul(dy).sum().backward()
    names = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    return names | {name.removeprefix("module."): b.clone() for name, b in model.named_buffers()}


def trained(rank):
    """By DDP, recomputed, and as one graph."""
    torch._dynamo.reset()
    model = DistributedDataParallel(Net())
    found = {"ddp": step(model, model, *part(rank))}
    model = Net()
    found["plain"] = step(model, model, *part(rank))
    model = Net()
    recompute = lambda *given: checkpoint(model, *given, use_reentrant=False)  # noqa: E731
    found["recomputed"] = step(model, recompute, *part(rank))
    model = Net()
    graph = torch.compile(model, fullgraph=True, backend="aot_eager")
    found["graph"] = step(model, graph, *part(rank))
    return found


def counted(rank):
    _, dy, mask = part(rank)
    found = {}
    for name in ("batch", "zca"):
        layer = anynorm.create(name, 4, sync=True)
        with Counting() as calls:
            layer(dy.clone().requires_grad_(), mask=mask).square().sum().backward()
        found[name] = calls.calls
    return found


def nothing_left(rank):
    """One value on all ranks together."""
    mask = torch.zeros(2, LENGTH, dtype=torch.bool)
    mask[0, 0] = rank == 1
    try:
        anynorm.BatchNorm1d(3, sync=True)(torch.randn(2, 3, LENGTH), mask=mask)
    except anynorm.AnynormError as error:
        return str(error)


def of_training(rank, size):
    return {f.__name__: f(rank) for f in (trained, counted, nothing_left)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return on_ranks(SIZE, of_training, tmp_path_factory.mktemp("ranks"))


# Of gradients that went through two layers, whose sums are taken in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def test_averaged_gradients_are_those_of_one_process(found):
    model, (x, dy, mask) = Net(sync=None), batch()
    expected = step(model, model, x, dy / SIZE, mask)
    for of in found:
        torch.testing.assert_close(of["trained"]["ddp"], expected, **CLOSE)


@pytest.mark.parametrize("how", ["recomputed", "graph"])
def test_other_ways_to_the_same_step(how, found):
    for of in found:
        torch.testing.assert_close(of["trained"][how], of["trained"]["plain"], **CLOSE)


def test_a_number_for_each_channel_is_sent(found):
    c = 4
    gather, reduce = "all_gather_into_tensor", "all_reduce"
    for of in found:
        assert of["counted"] == {
            "batch": [(gather, 8 * 3 * c), (reduce, 4 * 2 * c)],
            "zca": [(gather, 8 * (1 + c + c**2)), (reduce, 4 * (c + c**2))],
        }


def test_one_value_on_all_ranks(found):
    for of in found:
        assert "at most 1 value per channel" in of["nothing_left"]
