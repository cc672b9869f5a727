"""The promises about running statistics, each for torch's twins and for a layer of our own."""

import pytest
import torch
import torch.fx.experimental.proxy_tensor
from torch.utils.checkpoint import checkpoint

import anynorm
from anynorm.ops import Running

LAYERS = {
    "BatchNorm2d": lambda **kw: anynorm.BatchNorm2d(3, **kw),
    "l1-batch": lambda **kw: anynorm.create("l1-batch", 3, **kw),
    "ghost": lambda **kw: anynorm.create("ghost", 3, size=4, **kw),
    "zca": lambda **kw: anynorm.create("zca", 3, **kw),
}


@pytest.fixture(params=LAYERS)
def build(request):
    return LAYERS[request.param]


def batch(seed=0, *leading):
    return torch.randn(*leading, 8, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def statistics(layer):
    return {k: v.clone() for k, v in layer.named_buffers()}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_does_not_poison(build, bad):
    layer, x = build(), batch()
    layer(x)
    before = statistics(layer)
    poisoned = x.clone()
    poisoned[0, 1] = bad
    layer(poisoned.requires_grad_()).sum().backward()
    after = statistics(layer)
    for name in ("running_mean", "running_var", "running_cov"):
        if name in after:
            assert after[name].isfinite().all()
    torch.testing.assert_close(after["running_mean"][1], before["running_mean"][1])


def test_the_clean_channels_of_a_poisoned_batch_still_count():
    layer, x = anynorm.BatchNorm2d(3), batch()
    expected = torch.nn.BatchNorm2d(3)
    expected(x)
    x[0, 1] = float("nan")
    layer(x)
    for channel in (0, 2):
        torch.testing.assert_close(layer.running_var[channel], expected.running_var[channel])
    assert layer.running_var[1] == 1


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_counts_a_batch_once(build, reentrant):
    layer, plain, x = build(), build(), batch().requires_grad_()
    plain(x)
    checkpoint(layer, x, use_reentrant=reentrant).sum().backward()
    assert layer.num_batches_tracked == 1
    torch.testing.assert_close(statistics(layer), statistics(plain))


def test_two_forwards_before_one_backward(build):
    layer, first, second = build(), batch(1).requires_grad_(), batch(2).requires_grad_()
    cotangent = batch(3)
    y = layer(first)
    layer(second)
    y.backward(cotangent)
    again = first.detach().clone().requires_grad_()
    build()(again).backward(cotangent)
    torch.testing.assert_close(first.grad, again.grad)


def test_no_momentum_means_the_average_of_all_batches(build):
    layer = build(momentum=None)
    means = []
    for seed in range(3):
        layer(batch(seed))
        means.append(batch(seed).mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_mean, torch.stack(means).mean(0))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_training_compiles_without_a_graph_break(build, momentum):
    layer, compiled = build(momentum=momentum), build(momentum=momentum)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        torch.testing.assert_close(run(batch(seed)), layer(batch(seed)))
    torch.testing.assert_close(statistics(compiled), statistics(layer))


def test_vmap_over_an_ensemble_keeps_statistics_apart(build):
    models = [build() for _ in range(3)]
    x = batch(0, 3)
    parameters, buffers = torch.func.stack_module_state(models)

    def call(parameters, buffers, x):
        return torch.func.functional_call(models[0], (parameters, buffers), (x,))

    y = torch.vmap(call)(parameters, buffers, x)
    expected = [model(row) for model, row in zip(models, x, strict=True)]
    torch.testing.assert_close(y, torch.stack(expected), rtol=1e-4, atol=1e-4)
    for index, model in enumerate(models):
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffers[name][index], buffer, rtol=1e-4, atol=1e-5)


def test_vmap_over_shared_statistics_pools_the_batches():
    layer, x = anynorm.BatchNorm2d(3, momentum=1.0), batch(0, 5)
    torch.vmap(layer)(x)
    torch.testing.assert_close(layer.running_mean, x.mean((0, 1, 3, 4)))
    assert layer.num_batches_tracked == 1
    pooled = x.transpose(1, 2).flatten(2).transpose(0, 1).flatten(1).var(1, correction=0)
    torch.testing.assert_close(layer.running_var, pooled, rtol=0.02, atol=0)


def test_per_sample_gradients_in_training(build):
    layer, x = build(), batch(0, 2)
    parameters = {k: v.detach() for k, v in layer.named_parameters()}

    def loss(parameters, x):
        return (torch.func.functional_call(layer, parameters, (x,)) ** 3).sum()

    gradients = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for index in range(2):
        single = torch.func.grad(loss)(parameters, x[index])
        for name, gradient in single.items():
            torch.testing.assert_close(gradients[name][index], gradient, rtol=1e-3, atol=1e-3)


def test_an_empty_batch_changes_nothing(build):
    layer = build()
    before = statistics(layer)
    y = layer(batch()[:0])
    assert y.shape == (0, 3, 4, 4)
    after = statistics(layer)
    del before["num_batches_tracked"], after["num_batches_tracked"]
    torch.testing.assert_close(after, before)


def test_one_value_per_channel_names_the_fix(build):
    with pytest.raises(anynorm.AnynormError, match=r"drop_last=True|Possible sizes"):
        build()(torch.randn(1, 3, 1, 1))


def test_cumulative_averages_need_a_count():
    running = Running(torch.zeros(3), torch.ones(3), None, None)
    with pytest.raises(ValueError, match="needs num_batches_tracked"):
        running.track(torch.zeros(3), torch.ones(3))


def test_evaluation_leaves_the_statistics_alone(build):
    layer = build().eval()
    before = statistics(layer)
    layer(batch() + 5)
    torch.testing.assert_close(statistics(layer), before)


def test_mean_and_variance_track_torchs_to_the_bit():
    ours, theirs = anynorm.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    for seed in range(5):
        ours(batch(seed)), theirs(batch(seed))
    for name, buffer in theirs.named_buffers():
        assert torch.equal(ours.get_buffer(name), buffer)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_an_empty_batch_leaves_the_statistics_of_the_masked_update(momentum):
    layer = anynorm.BatchNorm2d(3, momentum=momentum)
    layer(batch())
    before = statistics(layer)
    run = torch.compile(layer, backend="eager") if momentum else layer
    run(batch()[:0])
    torch.testing.assert_close(layer.running_mean, before["running_mean"])
    torch.testing.assert_close(layer.running_var, before["running_var"])


def test_momentum_may_be_a_whole_number(build):
    layer = build(momentum=1).to("meta")
    assert layer(batch().to("meta")).is_meta


def test_vmap_over_an_ensemble_that_shares_its_input():
    models, x = [anynorm.BatchNorm2d(3) for _ in range(4)], batch()
    parameters, buffers = torch.func.stack_module_state(models)

    def call(parameters, buffers):
        return torch.func.functional_call(models[0], (parameters, buffers), (x,))

    torch.vmap(call)(parameters, buffers)
    models[0](x)
    assert buffers["num_batches_tracked"].tolist() == [1, 1, 1, 1]
    for row in buffers["running_var"]:
        torch.testing.assert_close(row, models[0].running_var)


def test_a_training_step_is_traced_without_reading_values(build):
    layer, x = build(), batch()
    graph = torch.fx.experimental.proxy_tensor.make_fx(layer)(x)
    torch.testing.assert_close(graph(x), build()(x))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_count_below_zero_is_no_count(build, momentum):
    """Weights of other programs hold such; an average over -3 batches would be without meaning."""
    layer, fresh = build(momentum=momentum), build(momentum=momentum)
    layer.num_batches_tracked.fill_(-3)
    for seed in range(4):
        layer(batch(seed))
        fresh(batch(seed))
    torch.testing.assert_close(layer.running_mean, fresh.running_mean)
    torch.testing.assert_close(layer.running_var, fresh.running_var)


def test_no_momentum_moves_nothing(build):
    layer = build(momentum=0.0)
    before = statistics(layer)
    layer(batch(0))
    after = statistics(layer)
    assert after.pop("num_batches_tracked") == 1
    del before["num_batches_tracked"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
