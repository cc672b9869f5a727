"""`Norm` and `create` against the NumPy reference: outputs, gradients and running statistics."""

import numpy as np
import pytest
import torch
from entries import ON_INPUT, TWINS, WITH_POSITIONS, channels, options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import anynorm
from anynorm import reference
from anynorm.activations import ACTIVATIONS

SHAPES = {2: (6, 4), 3: (6, 4, 5), 4: (6, 4, 3, 5), 5: (6, 4, 2, 3, 2)}
# Float32 loses about 1e-7 a value; sums of a hundred of them and a division by σ cost two digits.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}


def pair(name, shape, dtype=torch.float64, **extra):
    """Our layer and the reference's, with the same random γ and β."""
    size = channels(name, shape)
    ours = anynorm.create(name, size, channels_first=True, dtype=dtype, **options(name), **extra)
    truth = reference.create(name, size, **options(name), **extra)
    generator = np.random.default_rng(0)
    for parameter, attribute in ((ours.weight, "gamma"), (ours.bias, "beta")):
        if parameter is not None:
            value = generator.standard_normal(tuple(parameter.shape))
            parameter.data.copy_(torch.from_numpy(value))
            setattr(truth, attribute, parameter.detach().double().numpy())
    return ours, truth


def data(shape, seed=1):
    """Values whose channels have different spreads, so that principal axes are well apart."""
    x = np.random.default_rng(seed).standard_normal(shape)
    spread = 2.0 ** np.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    return x * spread + 1


def close(actual, expected, tolerance):
    scale = max(np.abs(expected).max(initial=0.0), 1e-3)
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, 0, tolerance * scale)


def compare(ours, truth, x, dtype, tolerance):
    """One forward and backward of both, by a random cotangent."""
    mine = torch.from_numpy(x).to(dtype).requires_grad_()
    dy = np.random.default_rng(2).standard_normal(x.shape)
    y = ours(mine)
    close(y, truth.forward(mine.detach().double().numpy()), tolerance)
    y.backward(torch.from_numpy(dy).to(dtype))
    close(mine.grad, truth.backward(torch.from_numpy(dy).to(dtype).double().numpy()), tolerance)
    for parameter, gradient in ((ours.weight, "dgamma"), (ours.bias, "dbeta")):
        if parameter is not None:
            close(parameter.grad, getattr(truth, gradient), tolerance)
            parameter.grad = None


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("name", ON_INPUT)
def test_every_entry_agrees_with_the_reference(name, rank):
    if TWINS[name].shapes is WITH_POSITIONS and rank == 2:
        pytest.skip("its statistics are over positions")
    ours, truth = pair(name, SHAPES[rank], activation="silu")
    for seed in range(2):
        compare(ours, truth, data(SHAPES[rank], seed), torch.float64, 1e-11)
    if truth.running is not None:
        close(ours.running_mean, truth.running_mean, 1e-11)
        spread = truth.running_cov if ours.spec.whitens else truth.running_var
        close(ours.get_buffer(ours._spread), spread, 1e-11)
        assert ours.num_batches_tracked == truth.num_batches_tracked
    compare(ours.eval(), truth.eval(), data(SHAPES[rank], 3), torch.float64, 1e-11)


@pytest.mark.parametrize("layout", ["channels_last", "permuted", "sliced", "expanded"])
@pytest.mark.parametrize("name", ON_INPUT)
def test_layouts_give_the_same_numbers(name, layout):
    ours, _ = pair(name, (6, 4, 3, 5))
    x = torch.from_numpy(data((6, 4, 3, 5)))
    if layout == "expanded":
        x = x[..., :1].expand(6, 4, 3, 5)
    changed = {
        "channels_last": lambda: x.to(memory_format=torch.channels_last),
        "permuted": lambda: x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
        "sliced": lambda: torch.cat([x, x], 3)[..., ::2],
        "expanded": lambda: x,
    }[layout]()
    same = x if layout != "sliced" else changed.contiguous()
    torch.testing.assert_close(ours(changed), ours(same.contiguous()), rtol=1e-9, atol=1e-9)


PATTERNS = [
    "[n] c [...]", "[n] c ...", "[n] ...", "(k [n]) c [...]", "n [c ...]", "n [c] ...",
    "n c [...]", "n (g [c]) [...]", "n (g [c]) ...", "[n] (g [c]) [...]", "... [c]",
]  # fmt: skip
SCALES = [("std", True), ("rms", False), ("l1", True), ("linf", True), ("lp", True), (None, True)]


@st.composite
def cases(draw):
    pattern = draw(st.sampled_from(PATTERNS))
    rank = draw(st.integers(3, 5))
    shape = [2 * draw(st.integers(2, 4)) for _ in range(2)]
    shape += [draw(st.integers(3, 5)) for _ in range(rank - 2)]
    scale, center = draw(st.sampled_from(SCALES))
    sizes = {"g": 2} if "g" in pattern else {"n": 2} if "k" in pattern else {}
    return {
        "pattern": pattern,
        "shape": tuple(shape),
        "scale": scale,
        "center": center,
        "sizes": sizes,
        "p": draw(st.sampled_from([1.5, 2.0, 4.0])) if scale == "lp" else None,
        "activation": draw(st.sampled_from(list(ACTIVATIONS))),
        "dtype": draw(st.sampled_from([torch.float64, torch.float32])),
        "order": draw(st.permutations(range(rank))),
        "training": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


def channels_of(pattern, shape):
    if "c" in pattern:
        return shape[-1] if pattern == "... [c]" else shape[1]
    return shape[1:]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(cases())
def test_random_patterns_shapes_types_and_strides(case):
    size = channels_of(case["pattern"], case["shape"])
    dtype, tolerance = case["dtype"], TOLERANCE[case["dtype"]]
    common = {"eps": 1e-3, "activation": case["activation"]}
    ours = anynorm.Norm(
        case["pattern"], size, scale=case["scale"], center=case["center"], p=case["p"],
        dtype=dtype, bias=True, **common, **case["sizes"],
    )  # fmt: skip
    truth = reference.Normalizer(ours.spec, size, sizes=case["sizes"], **common)
    ours.train(case["training"])
    truth.train(case["training"])
    x = np.random.default_rng(case["seed"]).standard_normal(case["shape"])
    order = case["order"]
    x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    compare(ours, truth, x, dtype, tolerance)
    if ours.track_running_stats:
        close(ours.running_mean, truth.running_mean, tolerance)
        close(ours.running_var, truth.running_var, tolerance)


@pytest.mark.parametrize("name", ON_INPUT)
def test_sixteen_bits_and_autocast(name):
    x = torch.from_numpy(data((6, 4, 3, 5))).float()
    for dtype in (torch.bfloat16, torch.float16):
        ours, _ = pair(name, x.shape, dtype=torch.float32)
        with torch.autocast("cpu", dtype=dtype):
            y = ours(x.to(dtype))
        precision = torch.finfo(dtype).eps
        expected = pair(name, x.shape, dtype=torch.float32)[0](x.to(dtype).float())
        # one rounding of the output, and of the affine step where torch does it in 16 bits
        torch.testing.assert_close(y.float(), expected, rtol=8 * precision, atol=8 * precision)


@pytest.mark.parametrize("name", ON_INPUT)
def test_second_derivatives(name):
    ours, _ = pair(name, (6, 4, 3))
    x = torch.from_numpy(data((6, 4, 3)) / 16).requires_grad_()

    def call(x, *parameters):
        named = dict(zip(dict(ours.named_parameters()), parameters, strict=True))
        statistics = {k: v.clone() for k, v in ours.named_buffers()}
        return torch.func.functional_call(ours, {**statistics, **named}, (x,))

    inputs = (x, *(p.detach().requires_grad_() for p in ours.parameters()))
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ON_INPUT)
def test_compiles_in_one_graph(name, training):
    eager, compiled = (pair(name, (6, 4, 3, 5), activation="relu")[0] for _ in range(2))
    eager.train(training), compiled.train(training)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    results = []
    for function, layer in ((run, compiled), (eager, eager)):
        x = torch.from_numpy(data((6, 4, 3, 5))).requires_grad_()
        y = function(x)
        y.backward(torch.from_numpy(data(y.shape, 5)))
        results.append(
            (y, x.grad, [p.grad for p in layer.parameters()], dict(layer.named_buffers()))
        )
    torch.testing.assert_close(*results)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # inside inductor
@pytest.mark.parametrize("name", ["batch", "ghost", "group", "l1-batch", "zca"])
def test_compiles_by_inductor(name):
    eager, compiled = (pair(name, (6, 4, 3, 5), activation="relu")[0] for _ in range(2))
    x = torch.from_numpy(data((6, 4, 3, 5)))
    run = torch.compile(compiled, fullgraph=True)
    torch.testing.assert_close(run(x), eager(x))
    torch.testing.assert_close(dict(compiled.named_buffers()), dict(eager.named_buffers()))


@pytest.mark.parametrize("name", ON_INPUT)
def test_exports_with_a_dynamic_batch(name):
    layer = pair(name, (6, 4, 3, 5))[0].eval()
    x = torch.from_numpy(data((6, 4, 3, 5)))
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: batch},))
    other = torch.from_numpy(data((10, 4, 3, 5)))
    torch.testing.assert_close(program.module()(other), layer(other))


@pytest.mark.parametrize("name", ON_INPUT)
def test_an_empty_batch_passes_through(name):
    layer = pair(name, (6, 4, 3))[0]
    x = torch.zeros(0, 4, 3, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: anynorm.create("group", 6, groups=4), "g=4 does not divide.*: 1, 2, 3, 6"),
        (lambda: anynorm.create("batch", 6, groups=4), "no option of 'batch' named 'groups'.*none"),
        (lambda: anynorm.create("weight", 6), r"anynorm\.normalized\(layer, 'weight'\)"),
        (lambda: anynorm.Norm("[n] c", 6, q=2), "does not split off"),
        (lambda: anynorm.Norm("[n] c", 6, scale="zca")(torch.ones(1, 6)), "more than 1 value"),
        (lambda: anynorm.Norm("[n] (g [c])", 6, g=2, scale="zca"), "whitening mixes"),
        (lambda: anynorm.Norm("[n] c", 6, activation="rellu"), 'Did you mean "relu"'),
        (lambda: anynorm.Norm("[n] c [...]", 6)(torch.ones(2, 5)), "channels=5, or permute"),
        (
            lambda: anynorm.Norm("[n] c [...]", 6)(torch.ones(2, 5, 6)),
            r"Axis 2 has size 6: if the channels are there, give it x.movedim\(2, 1\)",
        ),
        (lambda: anynorm.Norm("n c [...]", 6)(torch.ones(2, 6)), "nothing to take statistics over"),
        (lambda: anynorm.Norm("[n] c [...]", 6)(torch.ones(1, 6)), "more than 1 value per channel"),
        (lambda: anynorm.create("ghost", 6, size=4)(torch.ones(6, 6)), "n=4 does not divide"),
    ],
)  # fmt: skip
def test_errors_state_the_input_the_rule_and_the_fix(build, message):
    with pytest.raises(anynorm.AnynormError, match=message):
        build()


def test_state_loads_from_and_into_torch():
    theirs, ours = torch.nn.BatchNorm2d(4), anynorm.create("batch", 4)
    theirs(torch.randn(3, 4, 2, 2))
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert list(anynorm.create("rms", 4).state_dict()) == list(torch.nn.RMSNorm(4).state_dict())


def test_copies_and_pickles_keep_the_layer(tmp_path):
    import copy

    layer = anynorm.create("group", 4, groups=2, activation="relu")
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x))
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    again = anynorm.create("group", 4, groups=2, activation="relu")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(again(x), layer(x))


@pytest.mark.parametrize(
    ("pattern", "channels", "shape"),
    [
        ("[n l] c", 4, (8, 5, 4)),
        ("[n l] c", 5, (8, 5, 5)),
        ("[n l] (g [c])", 4, (8, 5, 4)),
        ("c [n]", 4, (4, 8)),
        ("[n] c [...]", (3, 5), (8, 3, 5, 2)),
        ("[n] c ...", (3, 5), (8, 3, 5)),
        ("[n ...]", (), (8, 3, 5)),
    ],
)
def test_evaluation_uses_the_running_statistics_where_they_lie(pattern, channels, shape):
    sizes = {"g": 2} if "g" in pattern else {}
    layer = anynorm.Norm(pattern, channels, momentum=1.0, dtype=torch.float64, **sizes)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = x * torch.arange(1.0, shape[-1] + 1)
    plan = layer.spec.pattern.plan(x.dim())
    layer(scaled)
    y = layer.eval()(scaled)
    after = x.dim() - plan.first - len(layer.channels)
    mean, var = (
        b.reshape((*layer.channels, *[1] * after)) for b in (layer.running_mean, layer.running_var)
    )
    torch.testing.assert_close(y, (scaled - mean) / torch.sqrt(var + layer.eps))


@pytest.mark.parametrize("pattern", ["n [c ...]", "n c [...]", "n [c h w]", "[n] c [...]"])
def test_gamma_may_have_several_axes(pattern):
    layer, x = anynorm.Norm(pattern, (3, 4, 5)), torch.randn(2, 3, 4, 5)
    plain = anynorm.Norm(pattern, 3, affine=False)(x)
    torch.nn.init.normal_(layer.weight)
    torch.testing.assert_close(layer(x), plain * layer.weight)
    torch.testing.assert_close(anynorm.Norm(pattern, (3, 4, 5), affine=False)(x), plain)


@pytest.mark.parametrize(
    ("pattern", "scale"), [("n (g [c]) [...]", "std"), ("[n] (g c) [...]", "zca")]
)
def test_a_split_is_given_by_either_part(pattern, scale):
    x = torch.randn(9, 6, 4)
    by_count = anynorm.Norm(pattern, 6, scale=scale, g=3)
    by_size = anynorm.Norm(pattern, 6, scale=scale, c=2)
    torch.testing.assert_close(by_size(x), by_count(x))
    assert by_size.state_dict().keys() == by_count.state_dict().keys()
    torch.testing.assert_close(by_size.eval()(x), by_count.eval()(x))


@pytest.mark.parametrize("size", [0, -2, 2.0, True])
def test_sizes_are_positive_whole_numbers(size):
    with pytest.raises(anynorm.AnynormError, match=f"g={size}: give a positive whole number"):
        anynorm.Norm("n (g [c])", 6, g=size)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
@pytest.mark.parametrize("name", ["l1-batch", "zca"])
def test_only_real_numbers_are_normalized(name, dtype):
    with pytest.raises(anynorm.AnynormError, match=r"real floating-point numbers, got torch\."):
        anynorm.create(name, 3)(torch.ones(4, 3, dtype=dtype))


def test_repr_tells_layers_apart():
    shown = {repr(anynorm.create(name, 64)) for name in ON_INPUT}
    assert len(shown) == len(ON_INPUT)
    assert "scale='l1'" in repr(anynorm.create("l1-batch", 4))
    assert "p=3.0" in repr(anynorm.create("lp-batch", 4, p=3.0))
    assert "center=False" in repr(anynorm.create("rms", 4))
    assert "track_running_stats=False" in repr(anynorm.Norm("[n] c", 4, track_running_stats=False))


def test_state_that_a_layer_does_not_have_is_none():
    layer = anynorm.create("group", 4, groups=2)
    assert layer.running_mean is None
    assert layer.num_batches_tracked is None


@pytest.mark.parametrize("name", ["zca", "pca"])
def test_whitening_fewer_values_than_channels_stays_finite(name):
    x = (100 * torch.randn(16, 64, generator=torch.Generator().manual_seed(0))).requires_grad_()
    y = anynorm.create(name, 64)(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)))
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", ["zca", "pca"])
def test_autocast_does_not_reach_the_covariance(name):
    x = torch.from_numpy(data((64, 8))).float()
    layer = anynorm.create(name, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert torch.equal(y, anynorm.create(name, 8)(x))


@pytest.mark.parametrize("name", ["l1-batch", "linf-batch", "lp-batch"])
def test_constants_compile_with_dynamic_shapes(name):
    layer = anynorm.create(name, 4)
    run = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for samples in (6, 9):
        x = torch.from_numpy(data((samples, 4, 3))).float()
        torch.testing.assert_close(run(x), anynorm.create(name, 4)(x))


def test_whitening_over_parts_of_the_batch_evaluates_any_batch():
    layer = anynorm.Norm("(k [n]) (g c) [...]", 4, g=2, n=3, scale="zca", dtype=torch.float64)
    truth = reference.Normalizer(layer.spec, 4, sizes={"g": 2, "n": 3})
    compare(layer, truth, data((6, 4, 3)), torch.float64, 1e-11)
    close(layer.running_cov, truth.running_cov, 1e-11)
    compare(layer.eval(), truth.eval(), data((5, 4, 3)), torch.float64, 1e-11)


def test_statistics_without_a_count_are_reset():
    norm = anynorm.create("batch", 3)
    norm.running_mean.fill_(2.0)
    norm.num_batches_tracked = None
    norm.reset_running_stats()
    assert norm.running_mean.tolist() == [0.0] * 3
