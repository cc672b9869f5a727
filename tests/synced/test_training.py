"""Training by synchronised statistics: DDP, FSDP2, compilation, checkpointing, accumulation."""

import copy

import pytest
import torch
from counting import Counting
from ranks import on_ranks
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import anynorm

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")

SIZE = 2
PARTS = (3, 5)
# Of gradients that went through two convolutions, whose sums are taken in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Net(nn.Module):
    """Two synchronised layers, one of them with a fused activation and a residual."""

    def __init__(self, sync=True, **norm):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm1 = anynorm.BatchNorm2d(4, sync=sync, **norm)
        self.norm2 = anynorm.create("batch", 4, sync=sync, activation="relu")
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, x):
        y = self.norm1(self.conv1(x))
        return self.norm2(self.conv2(y), y)


def batch():
    made = torch.Generator().manual_seed(3)
    x = torch.randn(sum(PARTS), 3, 6, 6, generator=made)
    return x, torch.randn(sum(PARTS), 4, 6, 6, generator=made)


def step(model, x, dy):
    """What the parameters get of one batch."""
    model(x).mul(dy).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    return {
        name.removeprefix("module."): grad.full_tensor() if hasattr(grad, "full_tensor") else grad
        for name, grad in grads.items()
        if "unused" not in name
    }


def part(rank):
    return tuple(t.split(PARTS)[rank] for t in batch())


def used(model):
    del model.unused
    return model


def ddp(rank, **options):
    return step(DistributedDataParallel(used(Net()), **options), *part(rank))


def ddp_unused(rank):
    return step(DistributedDataParallel(Net(), find_unused_parameters=True), *part(rank))


def ddp_static(rank):
    model = DistributedDataParallel(Net(), static_graph=True)
    step(model, *part(rank))
    model.zero_grad()
    return step(model, *part(rank))


def accumulated(rank):
    """Two steps, of which the first is not averaged at once."""
    model = DistributedDataParallel(used(Net()))
    with model.no_sync():
        step(model, *part(rank))
    return {name: grad / 2 for name, grad in step(model, *part(rank)).items()}


def fsdp(rank):
    model = used(Net())
    mesh = init_device_mesh("cpu", (SIZE,))
    for module in (model.norm1, model):
        fully_shard(module, mesh=mesh)
    return step(model, *part(rank))


def recomputed(rank):
    model, (x, dy) = Net(), part(rank)
    checkpoint(model, x, use_reentrant=False).mul(dy).sum().backward()
    plain = Net()
    plain(x).mul(dy).sum().backward()
    grads = [(p.grad, q.grad) for p, q in zip(model.parameters(), plain.parameters(), strict=True)]
    same = all(torch.equal(a, b) for a, b in grads if a is not None)
    buffers = zip(model.buffers(), plain.buffers(), strict=True)
    return same, all(torch.equal(a, b) for a, b in buffers), int(model.norm1.num_batches_tracked)


def compiled(rank, backend):
    torch._dynamo.reset()
    found, (x, dy) = [], part(rank)
    for wrap in (lambda m: m, lambda m: torch.compile(m, fullgraph=True, backend=backend)):
        model, own = Net(), x.clone().requires_grad_()
        y = wrap(model)(own)
        y.mul(dy).sum().backward()
        found.append((y.detach(), own.grad, model.norm1.weight.grad, *model.buffers()))
    return found


def compiled_refusal(rank, fullgraph):
    """What is said where the ranks are no whole number of groups."""
    torch._dynamo.reset()
    layer = torch.compile(Net(sync=3), fullgraph=fullgraph, backend="aot_eager")
    try:
        layer(part(rank)[0])
    except Exception as error:
        return type(error), str(error)


def compiled_groups(rank):
    """A group that is made while the graph is traced, and more kinds of σ."""
    torch._dynamo.reset()
    names = {"l1-batch": 1, "linf-batch": 2, "zca": True}
    model = nn.Sequential(*(anynorm.create(name, 4, sync=sync) for name, sync in names.items()))
    x = batch()[1].split(PARTS)[rank]
    y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    return torch.allclose(y, model(x), atol=1e-5)


def autocast(rank):
    model, (x, dy) = Net(), part(rank)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    y.float().mul(dy).sum().backward()
    return y.dtype, y.detach().float(), model.norm1.weight.grad, model.norm2.running_var


def scaled(rank, overflow):
    """Parameters and statistics after a step in float16, whose loss may be too large on rank 1."""
    model, (x, dy) = DistributedDataParallel(used(Net())), part(rank)
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu")
    with torch.autocast("cpu", torch.float16):
        y = model(x)
    loss = y.float().mul(dy).mean()
    scaler.scale(loss * 1e9 if overflow and rank else loss).backward()
    scaler.step(optimizer)
    scaler.update()
    state = {name: value.clone() for name, value in model.module.state_dict().items()}
    return y.dtype, scaler.get_scale(), state


def counted(rank):
    found = {}
    for name in ("batch", "l1-batch", "lp-batch", "linf-batch", "zca"):
        layer, x = anynorm.create(name, 4, sync=True), part(rank)[1].requires_grad_()
        with Counting() as forward:
            y = layer(x)
        with Counting() as backward:
            y.square().sum().backward()
        with Counting() as evaluating:
            layer.eval()(x).sum().backward()
        found[name] = forward.calls, backward.calls, evaluating.calls
    return found


def groups(rank):
    x = part(rank)[1]
    mesh = init_device_mesh("cpu", (SIZE,), mesh_dim_names=("data",))
    of_all = anynorm.SyncBatchNorm(4)(x)
    given = [anynorm.SyncBatchNorm(4, process_group=dist.group.WORLD)]
    given += [copy.deepcopy(given[0])]
    given += [anynorm.create("batch", 4, sync=s) for s in (mesh["data"], SIZE)]
    alone = anynorm.BatchNorm2d(4, sync=1)(x)
    return [torch.equal(layer(x), of_all) for layer in given], torch.allclose(
        alone, anynorm.BatchNorm2d(4)(x), atol=1e-6
    )


def of_rank(rank, size):
    averaged = (ddp, ddp_unused, ddp_static, accumulated, fsdp)
    found = {f.__name__: f(rank) for f in averaged}
    others = (recomputed, autocast, counted, groups, compiled_groups)
    found |= {("refusal", whole): compiled_refusal(rank, whole) for whole in (False, True)}
    found |= {("scaled", overflow): scaled(rank, overflow) for overflow in (False, True)}
    return found | {f.__name__: f(rank) for f in others} | {"traced": compiled(rank, "aot_eager")}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return on_ranks(SIZE, of_rank, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("how", ["ddp", "ddp_unused", "ddp_static", "accumulated", "fsdp"])
def test_averaged_gradients_are_those_of_one_process(how, found):
    x, dy = batch()
    expected = step(Net(sync=None), x, dy / SIZE)
    for rank in range(SIZE):
        assert found[rank][how].keys() == expected.keys()
        for name, grad in expected.items():
            torch.testing.assert_close(found[rank][how][name], grad, **CLOSE)


def test_checkpointing_changes_nothing_and_counts_once(found):
    assert [of["recomputed"] for of in found] == [(True, True, 1)] * SIZE


def test_a_compiled_graph_is_whole_and_equal(found):
    for eager, graph in (of["traced"] for of in found):
        for a, b in zip(eager, graph, strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
    assert all(of["compiled_groups"] for of in found)


def test_an_error_of_a_compiled_layer_is_its_own(found):
    said = "sync=3 does not divide the 2 ranks"
    for of in found:
        kind, text = of["refusal", False]
        assert kind is anynorm.AnynormError
        assert text.startswith(said)
        # A whole graph has no place for an error: torch quotes it, as it does all others.
        kind, text = of["refusal", True]
        assert kind is torch._dynamo.exc.Unsupported
        assert said in text


def _inductor(rank, size):
    return compiled(rank, "inductor")


@pytest.mark.slow
def test_inductor(tmp_path):
    for eager, graph in on_ranks(SIZE, _inductor, tmp_path):
        for a, b in zip(eager, graph, strict=True):
            torch.testing.assert_close(a, b, **CLOSE)


def test_autocast(found):
    x, dy = batch()
    model = Net(sync=None)
    y = model(x)
    y.mul(dy).sum().backward()
    assert all(of["autocast"][0] == torch.bfloat16 for of in found)
    assert torch.equal(found[0]["autocast"][3], found[1]["autocast"][3])
    whole = torch.cat([of["autocast"][1] for of in found])
    grad = torch.stack([of["autocast"][2] for of in found]).sum(0)
    # bfloat16 has 8 bits; the values passed through four operations in it.
    assert (whole - y).norm() < 4 * 2**-8 * y.norm()
    assert (grad - model.norm1.weight.grad).norm() < 0.05 * grad.norm()


def stepped():
    """The state of one process after a step in float32, by the mean of the ranks' losses."""
    model, (x, dy) = used(Net(sync=None)), batch()
    losses = [part.mean() for part in model(x).mul(dy).split(PARTS)]
    torch.stack(losses).mean().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    return model.state_dict()


def test_a_step_in_float16_with_scaled_gradients_is_that_in_float32(found):
    before, after = used(Net(sync=None)).state_dict(), stepped()
    for dtype, scale, state in (of["scaled", False] for of in found):
        assert (dtype, scale) == (torch.float16, 2**16)
        for name, value in state.items():
            moved = (after[name] - before[name]).float().norm()
            assert (value - after[name]).float().norm() <= 0.05 * moved + 1e-5


def test_an_overflow_on_one_rank_is_a_step_of_none_and_spoils_no_statistics(found):
    before, after = used(Net(sync=None)).state_dict(), stepped()
    for _, scale, state in (of["scaled", True] for of in found):
        assert scale == 2**15
        for name, value in state.items():
            kept = after if name.split(".")[-1] in Net().norm1._buffers else before
            torch.testing.assert_close(value, kept[name], rtol=1e-3, atol=1e-4)
            assert torch.equal(value, found[0]["scaled", True][2][name])


def test_collectives_and_their_bytes(found):
    """Forward count, mean and spread in float64, backward sums in the values' type."""
    gather, channels = "all_gather_into_tensor", 4
    moments, sums = (gather, 8 * (2 * channels + 1)), ("all_reduce", 4 * 2 * channels)
    four = ("all_reduce", 4 * 4 * channels)
    matrices = (gather, 8 * (1 + channels + channels**2))
    products = ("all_reduce", 4 * (channels + channels**2))
    expected = {
        "batch": ([moments], [sums]),
        "l1-batch": ([moments] * 2, [four]),
        "lp-batch": ([moments], [four]),
        "linf-batch": ([moments] * 2, [four]),
        "zca": ([matrices], [products]),
    }
    for of in found:
        for name, (forward, backward) in expected.items():
            assert of["counted"][name] == (forward, backward, [])


def test_groups_are_named_in_four_ways_and_shared_by_copies(found):
    assert [of["groups"] for of in found] == [([True] * 4, True)] * SIZE
