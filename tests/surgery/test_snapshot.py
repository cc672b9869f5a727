import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from anynorm.surgery.snapshot import Snapshot, preserved


class Restless(nn.Module):
    """Changes everything that a forward pass can change."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("replaced", torch.zeros(3))
        self.plain = torch.zeros(3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.replaced = self.replaced + 1
        self.plain = self.plain + random.random() + np.random.rand()
        return self.drop(self.norm(self.linear(x)))


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()


def random_states():
    return torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()


def assert_same_random_states(states):
    now = random_states()
    assert torch.equal(now[0], states[0])
    assert now[1:] == states[1:]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, 0.1),
    ],
    ids=["sgd", "momentum", "adam"],
)
@pytest.mark.parametrize("warm", [False, True], ids=["before the first step", "in training"])
def test_everything_is_put_back(make, warm):
    model = Restless()
    optimizer = make(model.parameters())
    if warm:
        step(model, optimizer)
    buffer, plain = model.replaced, model.plain
    tensors = copy.deepcopy(model.state_dict())
    optimizer_state = copy.deepcopy(optimizer.state_dict())
    states, calls = random_states(), model.calls

    with preserved(model, optimizer):
        model.drop.eval()
        step(model, optimizer)
        step(model, optimizer)
        assert model.calls == calls + 2

    assert model.drop.training
    assert model.calls == calls
    assert model.replaced is buffer
    assert model.plain is plain
    torch.testing.assert_close(model.state_dict(), tensors, rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state_dict(), optimizer_state, rtol=0, atol=0)
    assert_same_random_states(states)


def test_gradients_keep_identity_values_and_absence():
    model = nn.Linear(2, 2)
    model.weight.grad = kept = torch.ones(2, 2)
    with preserved(model):
        kept.add_(1)
        model(torch.randn(3, 2)).sum().backward()
    assert model.weight.grad is kept
    assert torch.equal(kept, torch.ones(2, 2))
    assert model.bias.grad is None


def test_learning_rate_and_hooks_are_put_back():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with preserved(model, optimizer):
        optimizer.param_groups[0]["lr"] = 7.0
        model.register_forward_hook(lambda *_: 1 / 0)
    assert optimizer.param_groups[0]["lr"] == 0.1
    model(torch.randn(3, 2))


def test_restoring_twice_freezes_what_is_random():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    x = torch.randn(16, 3)
    snapshot = Snapshot(model)
    outputs = []
    for _ in range(3):
        snapshot.restore()
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], model(x))


def test_the_state_is_put_back_after_an_error():
    model = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="after"), preserved(model):
        raise ValueError(f"after {model(torch.randn(4, 3)).shape}")
    assert model.num_batches_tracked == 0


def test_non_finite_values_are_kept():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.copy_(torch.tensor([[torch.inf, torch.nan]]))
    with preserved(model):
        model.weight.data.zero_()
    assert model.weight[0, 0].isinf()
    assert model.weight[0, 1].isnan()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_random_state_of_the_gpu_is_put_back():
    torch.ones(1, device="cuda")
    before = torch.cuda.get_rng_state()
    with preserved(nn.Identity()):
        torch.rand(5, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
