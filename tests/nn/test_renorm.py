"""Batch renorm: what its limits do, in training and in evaluation."""

import copy

import pytest
import torch

import anynorm
from anynorm import reference
from anynorm.errors import AnynormError
from anynorm.spec import Renorm, Spec


def layer(**limits):
    """One that has seen batches, so that its running statistics say something."""
    made = anynorm.create("batch-renorm", 4, dtype=torch.float64, **limits)
    for seed in range(20):
        made(data(seed))
    return made


def data(seed):
    made = torch.Generator().manual_seed(seed)
    return 2 + 3 * torch.randn(8, 4, 5, generator=made, dtype=torch.float64)


def test_between_the_limits_training_is_evaluation():
    norm, x = layer(), data(30)
    expected = copy.deepcopy(norm).eval()(x)
    torch.testing.assert_close(norm(x), expected)


def test_without_room_it_is_batch_norm():
    norm, x = layer(r_max=1.0, d_max=0.0), data(30)
    batch = anynorm.create("batch", 4, dtype=torch.float64)
    batch.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), batch(x))
    torch.testing.assert_close(norm.state_dict(), batch.state_dict())


@pytest.mark.parametrize("limits", [{}, {"r_max": 1.05, "d_max": 0.1}])
def test_agrees_with_the_reference_after_some_batches(limits):
    norm, truth = layer(**limits), reference.create("batch-renorm", 4, **limits)
    for seed in range(20):
        truth.forward(data(seed).numpy())
    x, dy = data(30).requires_grad_(), data(31)
    y = norm(x)
    y.backward(dy)
    found = (y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_var)
    expected = (truth.forward(x.detach().numpy()), truth.backward(dy.numpy()))
    expected += (truth.dgamma, truth.dbeta, truth.running_var)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, torch.as_tensor(other))


def test_limits_may_change_during_training():
    norm, x = layer(r_max=1.0, d_max=0.0), data(30)
    wide = layer()
    wide.load_state_dict(norm.state_dict())
    norm.spec = norm.spec.tuned(r_max=3.0, d_max=5.0)
    torch.testing.assert_close(norm(x), wide(x))


def test_without_running_statistics_nothing_is_corrected():
    spec = Spec.of("[n] c [...]", source=Renorm())
    norm = anynorm.Norm(spec, 4, track_running_stats=False, dtype=torch.float64)
    batch = anynorm.create("batch", 4, dtype=torch.float64)
    torch.testing.assert_close(norm(data(0)), batch(data(0)))


@pytest.mark.parametrize("limits", [{"r_max": 0.5}, {"d_max": -1.0}, {"r_max": "3"}])
def test_limits_that_are_none(limits):
    (name, value), *_ = limits.items()
    with pytest.raises(AnynormError, match=f"{name}={value!r}: give a number of at least"):
        Renorm(**limits)


@pytest.mark.parametrize("pattern", ["(k [n]) c [...]", "n c [...]", "... [c]"])
def test_other_statistics_are_refused(pattern):
    with pytest.raises(AnynormError, match="mean and variance of all values of a channel"):
        Spec.of(pattern, source=Renorm())
