"""A residual and φ inside the layers, against the layer without them and torch's own steps."""

import pytest
import torch
from entries import ON_INPUT, channels, options

import anynorm
from anynorm.activations import ACTIVATIONS
from anynorm.nn import Norm

LAYERS = {
    "BatchNorm2d": lambda **kw: anynorm.BatchNorm2d(4, **kw),
    "BatchNorm2d without γ": lambda **kw: anynorm.BatchNorm2d(4, affine=False, **kw),
    "InstanceNorm2d": lambda **kw: anynorm.InstanceNorm2d(4, track_running_stats=True, **kw),
    "GroupNorm": lambda **kw: anynorm.GroupNorm(2, 4, **kw),
    "LayerNorm": lambda **kw: anynorm.LayerNorm([3, 5], **kw),
    "RMSNorm": lambda **kw: anynorm.RMSNorm(5, **kw),
    **{
        f"create({name})": lambda name=name, **kw: anynorm.create(
            name, channels(name, SHAPE), channels_first=True, **options(name), **kw
        )
        for name in ON_INPUT
    },
    "γ on the last axis": lambda **kw: Norm("[n l t] c", 5, **kw),
}  # fmt: skip
SHAPE = (6, 4, 3, 5)


@pytest.fixture(params=LAYERS)
def build(request):
    def layer(**options):
        module = LAYERS[request.param](**options)
        generator = torch.Generator().manual_seed(0)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, generator=generator)
        for name, buffer in module.named_buffers():
            if name == "running_var":
                buffer.uniform_(0.5, 1.5, generator=generator)
        return module

    layer.name = request.param
    return layer


def tensors(seed=1, dtype=torch.float64, shape=SHAPE):
    """An input whose channels have different spreads, a residual and a cotangent."""
    generator = torch.Generator().manual_seed(seed)
    x, residual, dy = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    spread = 2.0 ** torch.arange(shape[-3]).reshape(-1, 1, 1)
    return [(x * spread).to(dtype), residual.to(dtype), dy.to(dtype)]


def results(layer, function, x, residual, dy):
    """Output, gradients by the cotangent, and statistics."""
    leaves = [x.detach().clone().requires_grad_(), residual.detach().clone().requires_grad_()]
    y = function(*leaves)
    gradients = torch.autograd.grad(y, [*leaves, *layer.parameters()], dy)
    return y, gradients, dict(layer.named_buffers())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("phi", [None, "relu", "gelu"])
def test_the_residual_is_added_before_phi(build, phi, memory_format, training):
    x, residual, dy = tensors()
    x = x.to(memory_format=memory_format)
    fused = build(activation=phi, dtype=x.dtype).train(training)
    plain = build(dtype=x.dtype).train(training)
    after = ACTIVATIONS[phi or "identity"].forward
    torch.testing.assert_close(
        results(fused, fused, x, residual, dy),
        results(plain, lambda x, r: after(plain(x) + r), x, residual, dy),
    )


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_phi_alone(build, phi):
    x, residual, dy = tensors()
    fused, plain = build(activation=phi, dtype=x.dtype), build(dtype=x.dtype)
    after = ACTIVATIONS[phi].forward
    # the residual takes part by nothing, so that it has a gradient
    torch.testing.assert_close(
        results(fused, lambda x, r: fused(x) + 0 * r, x, residual, dy),
        results(plain, lambda x, r: after(plain(x)) + 0 * r, x, residual, dy),
    )


def test_a_function_is_applied_behind_the_residual(build):
    x, residual, dy = tensors()
    fused, plain = build(activation=torch.atan, dtype=x.dtype), build(dtype=x.dtype)
    torch.testing.assert_close(
        results(fused, fused, x, residual, dy),
        results(plain, lambda x, r: torch.atan(plain(x) + r), x, residual, dy),
    )


@pytest.mark.parametrize("phi", ["relu", "silu"])
@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives(build, phi, training):
    layer = build(activation=phi, dtype=torch.float64).train(training)
    x, residual, _ = tensors()
    names = list(dict(layer.named_parameters()))

    def call(x, residual, *parameters):
        named = dict(zip(names, parameters, strict=True))
        buffers = {k: v.clone() for k, v in layer.named_buffers()}
        return torch.func.functional_call(layer, {**buffers, **named}, (x, residual))

    inputs = [t.detach().requires_grad_() for t in (x / 8, residual, *layer.parameters())]
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_in_one_graph(build, training):
    x, residual, dy = tensors()
    layers = [build(activation="relu", dtype=x.dtype).train(training) for _ in range(2)]
    run = torch.compile(layers[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        results(layers[0], run, x, residual, dy), results(layers[1], layers[1], x, residual, dy)
    )


def test_compiles_with_dynamic_shapes(build):
    layers = [build(activation="relu", dtype=torch.float64) for _ in range(2)]
    run = torch.compile(layers[0], fullgraph=True, backend="aot_eager", dynamic=True)
    for samples in (6, 9):
        x, residual, dy = tensors(shape=(samples, *SHAPE[1:]))
        torch.testing.assert_close(
            results(layers[0], run, x, residual, dy),
            results(layers[1], layers[1], x, residual, dy),
        )


@pytest.mark.parametrize("training", [True, False])
def test_vmap_over_an_ensemble(build, training):
    models = [build(activation="relu", dtype=torch.float64).train(training) for _ in range(3)]
    x, residual, _ = (torch.stack(t) for t in zip(*map(tensors, range(3)), strict=True))
    parameters, buffers = torch.func.stack_module_state(models)

    def loss(parameters, buffers, x, residual):
        state = (parameters, buffers)
        y = torch.func.functional_call(models[0], state, (x, residual))
        return y.pow(3).sum(), y

    gradient = torch.func.grad(loss, argnums=3, has_aux=True)
    together = torch.vmap(gradient)(parameters, buffers, x, residual)
    each = []
    for model, row, added in zip(models, x, residual, strict=True):
        added = added.clone().requires_grad_()
        y = model(row, added)
        each.append((torch.autograd.grad(y.pow(3).sum(), added)[0], y))
    expected = tuple(map(torch.stack, zip(*each, strict=True)))
    torch.testing.assert_close(together, expected)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's rms_norm
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wide", [True, False])
def test_sixteen_bits(build, dtype, wide):
    x, residual, dy = tensors(dtype=dtype)
    x = x / 8
    fused = build(activation="relu", dtype=torch.float32 if wide else dtype)
    exact = build(activation="relu", dtype=torch.float64)
    for mine, other in zip(exact.parameters(), fused.parameters(), strict=True):
        mine.data.copy_(other)
    y, gradients, _ = results(fused, fused, x, residual, dy)
    assert y.dtype == gradients[0].dtype == gradients[1].dtype == dtype
    assert [g.dtype for g in gradients[2:]] == [p.dtype for p in fused.parameters()]
    # Each of γ's product, β's and the residual's sum, and φ may round by half of `precision`.
    precision = torch.finfo(dtype).eps
    expected = exact(x.double(), residual.double())
    torch.testing.assert_close(y.double(), expected, rtol=4 * precision, atol=8 * precision)


@pytest.mark.parametrize("training", [True, False])
def test_the_output_may_be_changed_in_place(build, training):
    x, residual, dy = tensors()
    layer, other = (build(dtype=x.dtype).train(training) for _ in range(2))
    torch.testing.assert_close(
        results(layer, lambda x, r: layer(x, r).relu_(), x, residual, dy),
        results(other, lambda x, r: torch.relu(other(x, r)), x, residual, dy),
    )


def test_an_empty_batch_passes_through(build):
    layer = build(activation="relu")
    x, residual = (t[:0].float().requires_grad_() for t in tensors()[:2])
    y = layer(x, residual)
    assert y.shape == x.shape
    y.sum().backward()
    assert residual.grad.shape == residual.shape


def test_a_residual_must_fit(build):
    layer, (x, residual, _) = build(), tensors(dtype=torch.float32)
    with pytest.raises(anynorm.errors.ShapeError, match=r"residual has shape \(6, 4, 3, 1\), the"):
        layer(x, residual[..., :1])
    with pytest.raises(anynorm.AnynormError, match=r"torch\.float64.*residual\.to\(x\.dtype\)"):
        layer(x, residual.double())


def test_symbolic_tracing_takes_a_residual_along(build):
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = build(activation="relu")

        def forward(self, x, residual):
            return self.norm(x, residual) + self.norm(x, residual=residual) + self.norm(x)

    block = Block().eval()
    x, residual, _ = tensors(dtype=torch.float32)
    traced = torch.fx.symbolic_trace(block)
    assert [n.op for n in traced.graph.nodes].count("call_module") == 3
    torch.testing.assert_close(traced(x, residual), block(x, residual))


def test_samples_without_a_batch_axis_have_residuals_too():
    layer, plain = anynorm.InstanceNorm2d(4, activation="relu"), torch.nn.InstanceNorm2d(4)
    x, residual, _ = (t[0] for t in tensors())
    torch.testing.assert_close(layer(x, residual), torch.relu(plain(x) + residual))


def test_lazy_layers_take_a_residual_at_once():
    layer = anynorm.LazyBatchNorm2d(activation="relu", dtype=torch.float64)
    x, residual, _ = tensors()
    expected = anynorm.BatchNorm2d(4, activation="relu", dtype=x.dtype)(x, residual)
    torch.testing.assert_close(layer(x, residual), expected)
    assert type(layer) is anynorm.BatchNorm2d


def test_hooks_and_sequences_see_one_input():
    seen = []
    layer = anynorm.BatchNorm2d(4, activation="relu")
    layer.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs)))
    x, residual, _ = tensors(dtype=torch.float32)
    torch.nn.Sequential(layer)(x)
    layer(x, residual)
    assert seen == [1, 2]


def test_checkpointing_counts_a_batch_once():
    from torch.utils.checkpoint import checkpoint

    x, residual, dy = tensors()
    layers = [anynorm.BatchNorm2d(4, activation="relu", dtype=x.dtype) for _ in range(2)]

    def run(x, residual):
        return checkpoint(layers[0], x, residual, use_reentrant=False)

    torch.testing.assert_close(
        results(layers[0], run, x, residual, dy), results(layers[1], layers[1], x, residual, dy)
    )
