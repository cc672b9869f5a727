"""torch's own sample inputs for its normalization modules and functions, run on ours."""

import copy
import pickle
import re

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import anynorm

TWINS = {
    getattr(torch.nn, name): getattr(anynorm, name)
    for name in (
        *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"),
        *("LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d"),
        *("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
        *("LayerNorm", "GroupNorm", "RMSNorm"),
    )
}
MODULES = [info for info in module_db if info.module_cls in TWINS]
FUNCTIONS = [
    op
    for op in op_db
    if op.name.removeprefix("nn.functional.")
    in ("batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm")
    and not op.variant_test_name
]
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def samples(info, dtype, training):
    return info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training
    )


def build(cls, sample, dtype, training):
    layer = cls(*sample.constructor_input.args, **sample.constructor_input.kwargs)
    layer = layer.to(dtype).train(training)
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():  # γ = 1 and β = 0 would hide a mistake
        torch.nn.init.normal_(parameter, generator=generator)
    for name, buffer in layer.named_buffers():
        if name != "num_batches_tracked":
            buffer.uniform_(0.5, 1.5, generator=generator)
    return layer


def run(layer, sample, layout):
    """Output, gradients by a random cotangent, and buffers after one forward."""
    args = [a.detach().clone().requires_grad_() for a in sample.forward_input.args]
    inputs = args
    if layout and args[0].dim() in LAYOUTS:
        inputs = [args[0].to(memory_format=LAYOUTS[args[0].dim()]), *args[1:]]
    y = layer(*inputs, **sample.forward_input.kwargs)
    cotangent = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    y.backward(cotangent)
    gradients = [a.grad for a in args] + [p.grad for p in layer.parameters()]
    return y, gradients, dict(layer.named_buffers())


def uncounted(buffers):
    """Take back the count of one batch."""
    if "num_batches_tracked" in buffers:
        buffers["num_batches_tracked"] -= 1


@pytest.mark.parametrize("layout", [None, "channels_last"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("info", "dtype"),
    [(i, d) for i in MODULES for d in i.dtypes],
    ids=lambda v: getattr(v, "name", str(v)),
)
def test_module_samples(info, dtype, training, layout):
    ran = 0
    for sample in samples(info, dtype, training):
        theirs = build(info.module_cls, sample, dtype, training)
        ours = build(TWINS[info.module_cls], sample, dtype, training)
        found, expected = (run(layer, sample, layout) for layer in (ours, theirs))
        if training and not found[0].numel():  # a batch without values, which torch counts
            uncounted(expected[2])
        torch.testing.assert_close(found, expected)
        assert repr(ours) == repr(theirs)
        state = theirs.state_dict()
        assert list(ours.state_dict()) == list(state)
        assert type(ours.load_state_dict(state)) is type(theirs.load_state_dict(state))
        ran += 1
    assert ran > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "info", [i for i in MODULES if i.module_error_inputs_func], ids=lambda info: info.name
)
def test_module_error_inputs(info, training):
    errors = info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=True, training=training
    )
    ran = 0
    for error in errors:
        sample = error.module_error_input
        with pytest.raises(error.error_type, match=error.error_regex):
            build(TWINS[info.module_cls], sample, torch.float32, training)(
                *sample.forward_input.args, **sample.forward_input.kwargs
            )
        ran += 1
    assert ran > 0


@pytest.mark.parametrize(
    ("op", "dtype"),
    [(op, d) for op in FUNCTIONS for d in sorted(op.supported_dtypes("cpu"), key=str)],
    ids=lambda v: getattr(v, "name", str(v)),
)
def test_function_samples(op, dtype):
    ours = getattr(anynorm.functional, op.name.rsplit(".")[-1])
    differentiable = dtype in op.supported_backward_dtypes("cpu")
    ran = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=differentiable):
        if op.name.endswith("batch_norm") and refused(sample):
            continue
        results = [evaluate(f, sample, differentiable) for f in (ours, op.op)]
        torch.testing.assert_close(*results)
        ran += 1
    assert ran > 0


def refused(sample):
    """Where torch silently takes batch statistics in evaluation, or a single value: errors here."""
    kwargs = sample.kwargs
    return kwargs.get("training", False) is False and sample.args[0] is None


def evaluate(function, sample, differentiable):
    sample = copy.deepcopy(
        sample.transform(lambda t: t.detach() if isinstance(t, torch.Tensor) else t)
    )
    leaves = [sample.input, *sample.args, *sample.kwargs.values()]
    floats = [t for t in leaves if isinstance(t, torch.Tensor) and t.is_floating_point()]
    if differentiable:
        sample.input.requires_grad_()
    y = function(sample.input, *sample.args, **sample.kwargs)
    if not differentiable:
        return y, floats[1:]
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype))
    return y, sample.input.grad, floats[1:]


@pytest.mark.parametrize("theirs", TWINS, ids=lambda cls: cls.__name__)
def test_a_twin_is_an_instance_of_torchs_class(theirs):
    assert issubclass(TWINS[theirs], theirs)


def test_lazy_layers_become_ours():
    layer = anynorm.LazyBatchNorm2d(activation="relu")
    y = layer(torch.randn(2, 5, 3, 3))
    assert type(layer) is anynorm.BatchNorm2d
    assert y.min() >= 0


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            anynorm.BatchNorm2d(3),
            (2, 3),
            r"BatchNorm2d takes \(N, C, H, W\), got 2 axes.*BatchNorm1d",
        ),
        (anynorm.BatchNorm2d(3), (2, 4, 5, 5), "C = 3, got 4 channels.*num_features=4"),
        (anynorm.BatchNorm1d(3), (1, 3), "more than 1 value per channel.*drop_last=True"),
        (anynorm.InstanceNorm1d(3, affine=True), (2, 4, 5), "got 4 channels"),
        (anynorm.InstanceNorm2d(3), (2, 3, 1, 1), "more than 1 spatial element"),
        (anynorm.LayerNorm(4), (2, 5), r"normalized_shape=\[4\]"),
        (anynorm.RMSNorm(4), (2, 5), r"normalized_shape=\[4\]"),
        (anynorm.GroupNorm(2, 4), (4,), "at least 2 axes"),
        (anynorm.GroupNorm(2, 4), (2, 8, 3), "got 8 channels.*num_channels=8"),
    ],
)
def test_errors_name_the_shape_the_rule_and_the_fix(layer, shape, message):
    with pytest.raises(anynorm.AnynormError, match=re.compile(message, re.DOTALL)):
        layer(torch.randn(shape))


def test_groups_that_do_not_divide_are_told_which_do():
    with pytest.raises(anynorm.AnynormError, match="Possible numbers of groups: 1, 2, 3, 6"):
        anynorm.GroupNorm(4, 6)


def test_activation_is_applied_and_shown():
    x = torch.randn(4, 3, 5, 5)
    layer, plain = anynorm.BatchNorm2d(3, activation="relu"), torch.nn.BatchNorm2d(3)
    torch.testing.assert_close(layer(x), torch.relu(plain(x)))
    assert repr(layer).endswith("activation='relu')")
    assert repr(anynorm.GroupNorm(1, 3, activation=torch.tanh)).endswith("activation=tanh)")
    assert "(activation): SiLU()" in repr(anynorm.GroupNorm(1, 3, activation=torch.nn.SiLU()))
    with pytest.raises(anynorm.AnynormError, match='Did you mean "relu"'):
        anynorm.LayerNorm(3, activation="rleu")


def test_positional_arguments_are_torchs_own():
    ours = anynorm.BatchNorm2d(4, 1e-3, None, False, True)
    assert repr(ours) == repr(torch.nn.BatchNorm2d(4, 1e-3, None, False, True))


@pytest.mark.parametrize("activation", ["relu", torch.nn.PReLU(), torch.tanh, None])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_keep_the_activation(copied, activation):
    layer, x = anynorm.BatchNorm2d(3, activation=activation), torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(copied(layer)(x), layer(x))


def test_an_activation_must_be_a_function():
    with pytest.raises(anynorm.AnynormError, match=r"Give an instance: ReLU\(\)"):
        anynorm.BatchNorm2d(3, activation=torch.nn.ReLU)
    with pytest.raises(anynorm.AnynormError, match="5 is neither a name nor a function"):
        anynorm.GroupNorm(1, 3, activation=5)


def test_lazy_layers_take_a_state_before_their_first_input():
    state = torch.nn.BatchNorm2d(5).state_dict()
    layer = anynorm.LazyBatchNorm2d()
    layer.load_state_dict(state)
    assert layer(torch.randn(2, 5, 3, 3)).shape == (2, 5, 3, 3)
    assert layer.num_features == 5
    with pytest.raises(anynorm.AnynormError, match="C = 5, got 4"):
        layer(torch.randn(2, 4, 3, 3))


def test_symbolic_tracing_takes_the_layers_as_leaves():
    layers = [
        *(anynorm.BatchNorm2d(4), anynorm.GroupNorm(2, 4), anynorm.InstanceNorm2d(4)),
        *(anynorm.LayerNorm(3), anynorm.RMSNorm(3), anynorm.create("l1-batch", 4)),
    ]
    model, x = torch.nn.Sequential(*layers), torch.randn(2, 4, 3, 3)
    traced = torch.fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes][1:-1] == ["call_module"] * len(layers)
    torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("strides", [(20, 1, 20, 4, 20), (1, 1, 1, 4, 1)])
def test_gradients_of_strides_that_fit_several_layouts(strides, training, alike):
    """torch 2.13 gives wrong ones: it reads the cotangent in another layout than the input."""
    x = torch.randn(20, dtype=torch.float64).as_strided((1, 4, 1, 5, 1), strides)
    layer = anynorm.BatchNorm3d(4, dtype=torch.float64).train(training)
    cotangent, gradients = torch.randn(x.shape, dtype=x.dtype), []
    if alike:
        cotangent = torch.empty_strided(x.shape, strides, dtype=x.dtype).copy_(cotangent)
    for given in (x, x.clone(memory_format=torch.contiguous_format)):
        layer.zero_grad()
        leaf = given.detach().requires_grad_()
        layer(leaf).backward(cotangent)
        gradients.append((leaf.grad, layer.weight.grad, layer.bias.grad))
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(layer.bias.grad, cotangent.sum((0, 2, 3, 4)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_of_such_strides_are_rounded_once(dtype):
    x = torch.randn(2, 1, 256, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    ours, theirs = anynorm.BatchNorm2d(16), torch.nn.BatchNorm2d(16)
    theirs.weight.data.uniform_(0.5, 1.5)
    theirs.running_mean.uniform_(-0.5, 0.5)
    ours.load_state_dict(theirs.state_dict())
    layers = [layer.to(dtype).eval() for layer in (ours, theirs)]
    one, other = (layer(x.transpose(1, 3)) for layer in layers)
    assert torch.equal(one, other)


def test_a_single_image_in_channels_last_stays_so():
    x = torch.randn(1, 4, 5, 6).to(memory_format=torch.channels_last)
    for training in (True, False):
        assert anynorm.BatchNorm2d(4).train(training)(x).stride() == x.stride()


@pytest.mark.parametrize("layer", [anynorm.InstanceNorm2d(4), anynorm.BatchNorm2d(4)], ids=repr)
def test_gradients_of_a_single_image_in_channels_last(layer):
    x = torch.randn(1, 4, 5, 6)
    cotangent, gradients = torch.randn_like(x), []
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.clone(memory_format=layout).requires_grad_()
        layer(given).backward(cotangent.clone(memory_format=layout))
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients)
