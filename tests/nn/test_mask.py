"""What a mask leaves out has no part: the layers do what they do of the other values alone."""

import entries
import pytest
import torch
from entries import ON_INPUT, channels
from masks import alone, lengths, poisoned
from torch.utils.checkpoint import checkpoint

import anynorm
from anynorm import functional as F
from anynorm.errors import ShapeError
from anynorm.nn import Norm

N, C, L = 6, 4, 9
STATISTICS = [name for name in ON_INPUT if not anynorm.catalogue[name].spec.whitens]
CLOSE = {torch.float32: 1e-6, torch.float64: 1e-12}
# A single value has σ = √ε, by which rounding is divided before it cancels.
SINGLE = 2**-23 / 1e-5**0.5
# A principal axis turns with the rounding of its covariance by more than that.
AXES = 5e-6
TWINS = {
    "BatchNorm1d": lambda **kw: anynorm.BatchNorm1d(C, **kw),
    "InstanceNorm1d": lambda **kw: anynorm.InstanceNorm1d(
        C, affine=True, track_running_stats=True, **kw
    ),
    "GroupNorm": lambda **kw: anynorm.GroupNorm(2, C, **kw),
}


def created(name, **options):
    size, given = channels(name, (N, C, L)), {**entries.options(name), **options}
    layer = anynorm.create(name, size, channels_first=True, **given)
    return seeded(layer)


def seeded(layer):
    """With the same γ and β in every type."""
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=made) + 0.5)
    return layer


def tensors(dtype=torch.float64, shape=(N, C, L), far=0.0):
    """Input, residual and cotangent."""
    made = torch.Generator().manual_seed(1)
    x, residual, dy = torch.randn(3, *shape, generator=made, dtype=torch.float64)
    x = x * torch.linspace(0.5, 2, shape[1]).double().reshape(-1, *[1] * (len(shape) - 2)) + far
    return x.to(dtype), residual.to(dtype), dy.to(dtype)


def kinds():
    """A mask for each way of giving one: of positions, of single values, of whole samples."""
    made = torch.Generator().manual_seed(2)
    single = torch.rand(N, C, L, generator=made) < 0.6
    samples = torch.tensor([True, False, True, True, True, True])
    return {"positions": lengths(N, L), "values": single, "samples": samples[:, None, None]}


def whole(mask, shape=(N, C, L)):
    return (mask[:, None] if mask.dim() < len(shape) else mask).expand(shape)


def results(layer, call, x, residual, dy):
    """Output and gradients by the cotangent."""
    leaves = [x.detach().clone().requires_grad_(), residual.detach().clone().requires_grad_()]
    y = call(*leaves)
    return [y.detach(), *torch.autograd.grad(y, [*leaves, *layer.parameters()], dy)]


def check(found, expected, loose):
    for got, want in zip(found, expected, strict=True):
        assert (got - want).abs().max() <= loose * want.abs().max().clamp(min=1)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("phi", [None, "relu", "gelu"])
@pytest.mark.parametrize("name", STATISTICS)
def test_outputs_and_gradients_are_those_of_the_valid_values(name, phi, kind, dtype):
    mask = kinds()[kind]
    layer, (x, residual, dy) = created(name, activation=phi, dtype=dtype), tensors(dtype)
    there = whole(mask)
    x, residual = poisoned(x, there), poisoned(residual, there)
    found = results(layer, lambda *t: layer(*t, mask=mask), x, residual, dy)
    expected = results(layer, lambda *t: alone(layer, *t, there)[0], x, residual, dy)
    single = name == "batch-per-activation" and dtype == torch.float32
    # gradients are sums of up to 54 values
    check(found, expected, SINGLE if single else 4 * CLOSE[dtype])
    assert all((t[~there] == 0).all() for t in found[:3])


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("name", ["batch", "ghost", "l1-batch", "linf-batch", "lp-batch"])
def test_running_statistics_average_sets_by_their_numbers(name, kind):
    mask, layer, (x, residual, _) = kinds()[kind], created(name, dtype=torch.float64), tensors()
    layer(poisoned(x, whole(mask)), mask=mask)
    sets = torch.tensor(alone(layer, x, residual, whole(mask))[1]).double().reshape(-1, C, 3)
    # a set of one value has no unbiased variance
    weight = sets[..., 0] * (sets[..., 0] > (name in ("batch", "ghost")))
    mean, var = ((weight * sets[..., i]).sum(0) / weight.sum(0) for i in (1, 2))
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * var)
    assert layer.num_batches_tracked == 1


def rows(t, mask):
    """(1, C, M): the vectors that count."""
    return t.movedim(1, -1)[mask].T[None]


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", ["BatchNorm1d", "zca", "pca"])
def test_a_padded_batch_is_the_batch_without_padding(name, dtype):
    """As torch sees it, of the values picked out; and in evaluation by the same statistics."""
    mask, (x, residual, dy) = lengths(N, L), tensors(dtype)
    make = TWINS.get(name, lambda **kw: created(name, **kw))
    layer, plain = (seeded(make(dtype=dtype)) for _ in range(2))
    if name == "BatchNorm1d":
        plain = seeded(torch.nn.BatchNorm1d(C, dtype=dtype))
    loose = AXES if name == "pca" and dtype == torch.float32 else 4 * CLOSE[dtype]
    for training in (True, False):
        layer.train(training), plain.train(training)
        padded = [poisoned(t, whole(mask)) for t in (x, residual)]
        y, *found = results(layer, lambda *t: layer(*t, mask=mask), *padded, dy)
        picked = [rows(t, mask) for t in (x, residual, dy)]
        expected = results(plain, lambda a, b: plain(a) + b, *picked)
        parts = [y, found[0], found[1]]
        check([rows(t, mask) for t in parts] + found[2:], expected, loose)
        assert all((t[~whole(mask)] == 0).all() for t in parts)
        check(list(layer.buffers())[:2], list(plain.buffers())[:2], loose)


@pytest.mark.parametrize("name", TWINS)
def test_the_twins_are_the_patterns(name):
    spec = {"BatchNorm1d": "batch", "InstanceNorm1d": "instance", "GroupNorm": "group"}[name]
    mask, given = lengths(N, L), tensors()
    layer, pattern = (
        seeded(m) for m in (TWINS[name](dtype=torch.float64), created(spec, dtype=torch.float64))
    )
    found = results(layer, lambda *t: layer(*t, mask=mask), *given)
    check(found, results(pattern, lambda *t: pattern(*t, mask=mask), *given), 1e-14)


def test_instances_enter_running_statistics_by_their_numbers():
    mask, (x, *_) = lengths(N, L), tensors()
    mask[0] = False
    layer = TWINS["InstanceNorm1d"](dtype=torch.float64)
    layer(poisoned(x, whole(mask)), mask=mask)
    parts = [row[:, valid] for row, valid in zip(x, mask, strict=True) if valid.any()]
    number = mask.sum().double()
    mean = sum(part.shape[1] * part.mean(1) for part in parts) / number
    var = sum(part.shape[1] * part.var(1) for part in parts) / number
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * var)
    layer.eval()
    y = layer(poisoned(x, whole(mask)), mask=mask)
    torch.testing.assert_close(y, torch.where(whole(mask), layer(x), 0))


def test_a_single_instance_without_the_axis_of_samples():
    (x, residual, _), valid = tensors(), torch.arange(L) < 5
    layer = TWINS["InstanceNorm1d"](dtype=torch.float64)
    for mask in (valid, valid[None]):
        y = layer(poisoned(x[0], valid.expand(C, L)), residual[0], mask=mask)
        alone_ = layer(x[0, :, :5], residual[0, :, :5])
        torch.testing.assert_close(y[:, :5], alone_)
        assert (y[:, 5:] == 0).all()


@pytest.mark.parametrize("name", ["batch", "zca", "instance", "layer", "none"])
def test_a_mask_of_nothing_but_true_changes_nothing(name):
    given, mask = tensors(), torch.ones(N, L, dtype=torch.bool)
    masked, plain = (created(name, dtype=torch.float64) for _ in range(2))
    found = results(masked, lambda *t: masked(*t, mask), *given)
    check(found, results(plain, plain, *given), 1e-12)
    check(list(masked.buffers()), list(plain.buffers()), 1e-12)


def test_channels_without_values_keep_their_statistics():
    x, *_ = tensors(torch.float32)
    mask = torch.ones(1, C, 1, dtype=torch.bool)
    mask[0, 1] = False
    for name in ("batch", "l1-batch"):
        layer = created(name)
        y = layer(poisoned(x, whole(mask)), mask=mask)
        assert (y[:, 1] == 0).all()
        assert layer.running_mean[1] == 0
        assert layer.running_var[1] == 1
        assert (layer.running_mean[0], layer.num_batches_tracked) != (0, 0)


@pytest.mark.parametrize("name", ["batch", "layer", "rms", "l1-batch", "linf-batch", "instance"])
def test_statistics_of_nothing_without_epsilon(name):
    """Zeros over zero would reach γ."""
    x, residual, dy = tensors()
    mask = lengths(N, L) & (torch.arange(N) > 1)[:, None]
    mask = whole(mask) & (torch.arange(C) != 2)[:, None]
    layer = created(name, eps=0.0, dtype=torch.float64)
    found = results(layer, lambda *t: layer(*t, mask), poisoned(x, mask), residual, dy)
    assert all(t.isfinite().all() for t in found)


def test_means_far_from_zero_keep_their_digits():
    mask, (x, residual, dy) = lengths(N, L), tensors(torch.float32, far=1000.0)
    layer, exact = (created("batch", dtype=t) for t in (torch.float32, torch.float64))
    found = results(layer, lambda *t: layer(*t, mask=mask), x, residual, dy)
    wide = [t.double() for t in (x, residual, dy)]
    check(found, results(exact, lambda *t: exact(*t, mask=mask), *wide), 4e-6)
    check(layer.buffers(), exact.buffers(), 1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["batch", "group", "zca"])
def test_images_in_both_layouts(name, memory_format):
    shape = (N, C, 3, 5)
    made = torch.Generator().manual_seed(4)
    mask = torch.rand(N, 1, 3, 5, generator=made) < 0.7
    layer, given = created(name, dtype=torch.float64), tensors(shape=shape)
    laid = [t.contiguous(memory_format=memory_format) for t in given]
    found = results(layer, lambda *t: layer(*t, mask=mask), *laid)
    flat = [t.flatten(2) for t in given]
    expected = results(layer, lambda *t: layer(*t, mask=mask.flatten(2)), *flat)
    check([t.reshape(w.shape) for t, w in zip(found, expected, strict=True)], expected, 1e-12)
    if name != "zca":  # whose matrices are laid out anew
        assert found[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["batch", "l1-batch", "zca", "group"])
def test_sixteen_bits(name, dtype):
    mask, given = lengths(N, L), tensors(dtype)
    layer, exact = created(name), created(name, dtype=torch.float64)
    x = poisoned(given[0], whole(mask))
    y = layer(x, given[1], mask=mask)
    assert y.dtype == dtype
    wide = exact(*(t.double() for t in given[:2]), mask=mask)
    # half a unit of the last of 8 or 11 bits, and φ's input was rounded once before
    assert (y - wide).abs().max() <= 2 * torch.finfo(dtype).eps * wide.abs().max()
    check(list(layer.buffers()), list(exact.buffers()), 1e-6)


def test_under_autocast():
    mask, (x, *_) = lengths(N, L), tensors(torch.float32)
    layer, conv = anynorm.BatchNorm1d(C), torch.nn.Conv1d(C, C, 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(conv(poisoned(x, whole(mask))), mask=mask)
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()
    y.sum().backward()
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", ["batch", "l1-batch", "linf-batch", "lp-batch", "group", "zca"])
def test_gradcheck(name):
    (x, residual, _), mask = tensors(shape=(4, C, 3)), lengths(4, 3)
    layer = created(name, activation="tanh", dtype=torch.float64)
    parameters = dict(layer.named_parameters())

    def call(x, residual, *values):
        given = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, given, (x, residual, mask))

    leaves = [x, residual, *parameters.values()]
    assert torch.autograd.gradcheck(call, [t.detach().requires_grad_() for t in leaves])


# torch.compile does that itself with every autograd.Function
instantiates = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@instantiates
@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("training", [True, False])
def test_one_graph(name, training):
    mask, given = lengths(N, L), tensors(torch.float32)
    layer, eager = (seeded(TWINS[name](activation="relu")).train(training) for _ in range(2))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = results(layer, lambda *t: compiled(*t, mask=mask), *given)
    check(found, results(eager, lambda *t: eager(*t, mask=mask), *given), 1e-6)
    check(list(layer.buffers()), list(eager.buffers()), 1e-6)


@instantiates
@pytest.mark.parametrize("name", ["linf-batch", "zca", "ghost"])
def test_one_graph_of_patterns(name):
    mask, (x, *_) = lengths(N, L), tensors(torch.float32)
    layer, eager = created(name), created(name)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, mask=mask)
    check([y, *layer.buffers()], [eager(x, mask=mask), *eager.buffers()], 1e-6)


def test_checkpointing_counts_a_batch_once():
    mask, (x, _, dy) = lengths(N, L), tensors()
    found = []
    for wrap in (False, True):
        layer, own = created("batch", dtype=torch.float64), x.clone().requires_grad_()
        y = (
            checkpoint(layer, own, None, mask, use_reentrant=False)
            if wrap
            else layer(own, None, mask)
        )
        y.backward(dy)
        found.append([y.detach(), own.grad, *layer.buffers()])
    check(*found, 0.0)


class Padded(torch.nn.Module):
    """Layers of every class in one model, all with a mask."""

    def __init__(self):
        super().__init__()
        self.lazy, self.frozen = anynorm.LazyBatchNorm1d(), anynorm.FrozenBatchNorm(C)
        self.batch, self.norm = anynorm.BatchNorm1d(C), Norm("[n] c [...]", C, activation="relu")
        self.instance, self.group = anynorm.InstanceNorm1d(C), anynorm.GroupNorm(2, C)

    def forward(self, x, mask):
        for layer in self.children():
            x = layer(x, mask=mask)
        return x


def test_layers_trace_with_their_mask():
    mask, (x, *_) = lengths(N, L), tensors(torch.float32)
    model = Padded()
    y = model(x, mask)
    traced = torch.fx.symbolic_trace(model)
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    assert [list(node.kwargs) for node in calls] == [["mask"]] * 6
    torch.testing.assert_close(traced.eval()(x, mask), model.eval()(x, mask))
    assert (y[~whole(mask)] == 0).all()


def test_only_the_mask_is_traced():
    x, *_ = tensors(torch.float32)

    class Constant(Padded):
        def forward(self, mask):
            return [layer(x, None, mask) for layer in self.children()]

    model = Constant()
    model(lengths(N, L))
    nodes = torch.fx.symbolic_trace(model).graph.nodes
    assert sum(node.op == "call_module" for node in nodes) == 6


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("batch", (L,)),
        ("batch", (C, L)),
        ("batch", (1, L)),
        ("batch", (N, C, L, 1)),
        ("batch", (N, C, L - 1)),
        ("batch", (N,)),
        ("layer-over-channels", (N, C)),
        ("BatchNorm1d", (C, L)),
        ("GroupNorm", (L,)),
        ("InstanceNorm1d", (N, C)),
    ],
)
def test_shapes_that_do_not_fit(name, shape):
    layer = TWINS[name]() if name in TWINS else created(name)
    with pytest.raises(ShapeError, match=r"mask= has shape .*\(6, 4, 9\).*permute"):
        layer(torch.randn(N, C, L), mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("mask", [torch.ones(N, L), torch.ones(N, L).int(), [[True] * L] * N])
def test_masks_that_are_not_bool(mask):
    with pytest.raises(anynorm.AnynormError, match=r"mask= is .*bool"):
        anynorm.BatchNorm1d(C)(torch.randn(N, C, L), mask=mask)


def test_whitening_takes_one_choice_for_all_channels():
    mask = torch.ones(N, C, L, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"whitening takes the channels .* together"):
        created("zca")(torch.randn(N, C, L), mask=mask)


@pytest.mark.parametrize("name", ["batch", "BatchNorm1d", "zca", "l1-batch"])
@pytest.mark.parametrize("left", [0, 1])
def test_no_two_values_left(name, left):
    layer = TWINS[name]() if name in TWINS else created(name)
    mask = torch.zeros(N, L, dtype=torch.bool)
    mask.view(-1)[:left] = True
    with pytest.raises(ShapeError, match=r"at most 1 value per channel.*~mask"):
        layer(torch.randn(N, C, L), mask=mask)
    assert layer.num_batches_tracked == 0
    assert (layer.eval()(torch.randn(N, C, L), mask=mask)[~whole(mask)] == 0).all()


def test_a_single_value_is_known_beforehand_too():
    with pytest.raises(ShapeError, match="more than 1 value per channel"):
        anynorm.BatchNorm1d(C)(torch.randn(1, C), mask=torch.ones(1, dtype=torch.bool))


def test_an_empty_batch():
    layer = anynorm.BatchNorm1d(C)
    y = layer(torch.randn(0, C, L), mask=torch.ones(0, L, dtype=torch.bool))
    assert y.shape == (0, C, L)
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("training", [True, False])
def test_functions_take_a_mask_as_layers_do(training):
    mask, (x, residual, _) = lengths(N, L), tensors()
    layer = TWINS["BatchNorm1d"](dtype=torch.float64).train(training)
    statistics = torch.zeros(C).double(), torch.ones(C).double()
    options = {"training": training, "residual": residual, "mask": mask}
    y = F.batch_norm(x, *statistics, layer.weight, layer.bias, **options)
    torch.testing.assert_close(y, layer(x, residual, mask))
    torch.testing.assert_close(list(statistics), [layer.running_mean, layer.running_var])
    grouped = F.group_norm(x, 2, mask=mask)
    torch.testing.assert_close(grouped, anynorm.GroupNorm(2, C).double()(x, mask=mask))
    instances = F.instance_norm(x, mask=mask)
    torch.testing.assert_close(instances, anynorm.InstanceNorm1d(C)(x, mask=mask))


def test_no_second_derivative_is_said():
    x, *_ = tensors()
    y = created("batch", dtype=torch.float64)(x.requires_grad_(), mask=lengths(N, L))
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_a_function_as_activation_and_a_residual_that_does_not_fit():
    mask, (x, residual, _) = lengths(N, L), tensors()
    layer = created("batch", activation=torch.exp, dtype=torch.float64)
    y = layer(poisoned(x, whole(mask)), residual, mask=mask)
    assert (y[~whole(mask)] == 0).all()
    assert (y[whole(mask)] > 0).all()
    with pytest.raises(ShapeError, match="the residual has shape"):
        layer(x, residual[:1], mask=mask)
