"""Which operator is called: ours where the CPU's kernels are faster, else torch's.

The choice is that of a machine with kernels; without them the operators run by the formula.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import anynorm
from anynorm import functional as F
from anynorm.ops.backends import torch_operators

LEAST = 1000


@pytest.fixture(autouse=True)
def kernels(monkeypatch, pays_from):
    """Pretend that there are kernels, which pay from LEAST values on."""
    monkeypatch.setattr(torch_operators, "_OWN", True)
    monkeypatch.setattr("anynorm.kernels._ON_CPU", True)
    pays_from(LEAST)


class Called(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def ours(function, *args, **kwargs):
    """The operators of ours that a call came to."""
    with Called() as called:
        function(*args, **kwargs)
    return [name.partition("::")[2] for name in called.names if name.startswith("anynorm::")]


LAYERS = {
    "batch": lambda **kw: anynorm.BatchNorm2d(4, **kw),
    "instance": lambda **kw: anynorm.InstanceNorm2d(4, affine=True, **kw),
    "group": lambda **kw: anynorm.GroupNorm(2, 4, **kw),
    "layer": lambda **kw: anynorm.LayerNorm([5, 5], **kw),
    "rms": lambda **kw: anynorm.RMSNorm([5, 5], **kw),
}
SMALL, LARGE = (8, 4, 5, 5), (10, 4, 5, 5)  # 800 and 1000 values


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


def test_the_number_of_values_decides(name):
    layer = LAYERS[name]()
    assert ours(layer, torch.randn(SMALL)) == []
    assert ours(layer, torch.randn(LARGE)) == ["standardize"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_types_that_kernels_know(name, dtype):
    x = torch.randn(LARGE).to(dtype)
    assert ours(LAYERS[name](dtype=dtype), x) == ["standardize"]
    wider = LAYERS[name](dtype=torch.float32)
    if dtype != torch.float64:
        assert ours(wider, x) == ["standardize"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_neither_type_nor_choice(name, dtype):
    layer, x = LAYERS[name](), torch.randn(LARGE).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == dtype
        assert ours(layer, x) == ["standardize"]


def test_what_is_fused_is_ours_at_any_size(name):
    x = torch.randn(2, 4, 5, 5)
    assert ours(LAYERS[name](activation="relu"), x) == ["standardize"]
    assert ours(LAYERS[name](), x, x) == ["standardize"]
    assert ours(LAYERS[name](activation=torch.tanh), x) == []
    assert ours(LAYERS[name](activation="identity"), x) == []


def test_evaluation_is_ours_only_with_something_to_fuse():
    x = torch.randn(LARGE)
    for layer in (anynorm.BatchNorm2d(4), anynorm.InstanceNorm2d(4, track_running_stats=True)):
        assert ours(layer.eval(), x) == []
        assert ours(layer, x, x) == ["normalize"]


def test_a_meta_device_and_a_fake_one_get_torchs(name):
    assert ours(LAYERS[name](device="meta"), torch.randn(LARGE, device="meta")) == []


def test_a_transform_gets_torchs(name):
    layer = LAYERS[name]()
    if name == "batch":
        layer.track_running_stats = False
    assert ours(torch.vmap(layer), torch.randn(2, *LARGE)) == []


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # inside torch
def test_forward_mode_gets_torchs(name):
    layer, x, direction = LAYERS[name]().double(), *torch.randn(2, *LARGE).double()
    with torch.autograd.forward_ad.dual_level():
        y = layer(torch.autograd.forward_ad.make_dual(x, direction))
        tangent = torch.autograd.forward_ad.unpack_dual(y).tangent
    step = 1e-6
    expected = (layer(x + step * direction) - layer(x - step * direction)) / (2 * step)
    torch.testing.assert_close(tangent, expected, rtol=1e-5, atol=1e-6)


def test_an_export_holds_torchs(name):
    layer, x = LAYERS[name](activation="relu").eval(), torch.randn(LARGE)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(layer, (x, x), dynamic_shapes=({0: batch}, {0: batch}))
    assert not any("anynorm" in str(node.target) for node in program.graph.nodes)
    other = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(program.module()(other, other), layer(other, other))


def test_what_torch_would_refuse_is_left_to_it():
    x = torch.randn(LARGE)
    with pytest.raises(RuntimeError, match="should contain 4 elements"):
        F.batch_norm(x, None, None, torch.ones(5), training=True)
    with pytest.raises(anynorm.AnynormError, match="must have the same type"):
        F.batch_norm(x, None, None, torch.ones(4).bfloat16(), training=True)
    with pytest.raises(anynorm.AnynormError, match="normalized_shape"):
        F.layer_norm(x, (4,), activation="relu")
    with pytest.raises(anynorm.AnynormError, match="normalized_shape"):
        F.rms_norm(x, (4,))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_graphs_choose_by_shape(name, dynamic, memory_format):
    seen = []

    def backend(graph, inputs):
        seen.append([str(node.target) for node in graph.graph.nodes])
        return graph

    layer = LAYERS[name]()
    run = torch.compile(layer, backend=backend, fullgraph=True, dynamic=dynamic)
    for samples in (8, 10, 11):
        x = torch.randn(samples, 4, 5, 5).to(memory_format=memory_format)
        torch.testing.assert_close(run(x), layer(x))
    chosen = [any("standardize" in target for target in targets) for targets in seen]
    assert chosen == [False, True]


def same(name, layer, x, *residual):
    """The layer's output, gradients and statistics, by our operator and by torch's."""
    results = []
    for taken in (True, False):
        torch_operators._OWN = taken
        module, leaves = layer(), [t.detach().clone().requires_grad_() for t in (x, *residual)]
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        inputs = [leaf.to(memory_format=memory_format_of(x)) for leaf in leaves]
        assert bool(ours(module, *inputs)) == taken
        y = module(*inputs)
        dy = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
        wanted = [*leaves, *module.parameters()]
        results.append((y, torch.autograd.grad(y, wanted, dy), dict(module.named_buffers())))
        assert not taken or y.stride() == inputs[0].stride()
    torch.testing.assert_close(*results)


def memory_format_of(x):
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_ours_and_torchs_agree(name, memory_format, added):
    generator = torch.Generator().manual_seed(0)
    x, residual = torch.randn(2, *LARGE, generator=generator, dtype=torch.float64)
    x = x.to(memory_format=memory_format)

    def layer():
        return LAYERS[name](dtype=torch.float64, activation="silu" if added else None)

    same(name, layer, x, *([residual] if added else []))


def test_the_output_may_be_changed_in_place(name):
    layer, (x, dy) = LAYERS[name](), torch.randn(2, *LARGE)
    x.requires_grad_()
    results = []
    for function in (torch.relu, torch.relu_):
        y = layer(x)
        results.append(torch.autograd.grad(function(y), x, dy))
    torch.testing.assert_close(*results)
    with torch.no_grad():
        y = layer(x)
    assert y.add_(torch.ones(1, requires_grad=True)).requires_grad


def test_instances_enter_the_running_statistics_by_their_average():
    x = torch.randn(LARGE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    same("instance", lambda: LAYERS["instance"](track_running_stats=True, dtype=x.dtype), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rms_norm_has_torchs_epsilon(dtype):
    x = (1e-3 * torch.randn(10, 100)).to(dtype)
    assert ours(anynorm.RMSNorm(100, dtype=dtype), x) == ["standardize"]
    expected = torch.nn.functional.rms_norm(x, (100,))
    torch.testing.assert_close(F.rms_norm(x, (100,)), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("fused", [True, False])
def test_a_bad_channel_does_not_poison_the_others(bad, fused):
    x = torch.randn(LARGE)
    layer, expected = (anynorm.BatchNorm2d(4, activation="relu" if fused else None) for _ in "ab")
    expected(x)
    x[0, 1] = bad
    layer(x)
    assert layer.running_var[1] == 1
    for channel in (0, 2, 3):
        torch.testing.assert_close(layer.running_var[channel], expected.running_var[channel])
    assert layer.num_batches_tracked == 1


def test_a_variance_too_large_for_the_running_one_does_not_poison():
    layer = anynorm.BatchNorm2d(4)
    layer(1e25 * torch.randn(LARGE))  # whose variance is finite in float64 only
    assert layer.running_var.isfinite().all()
