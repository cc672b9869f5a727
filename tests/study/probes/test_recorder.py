import copy
import json
import random

import numpy as np
import pytest
import torch
from torch import nn

import anynorm
from anynorm.errors import UnknownNameError
from anynorm.study.noise import DistributionNoise
from anynorm.study.probes import Recorder

STEPS = 25
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
}
MIDDLES = {
    "dropout": lambda: nn.Dropout(0.3),
    "batch norm": lambda: nn.BatchNorm1d(16),
    "batch by formula": lambda: anynorm.create("batch", 16),
    "whitening": lambda: anynorm.create("zca", 16, groups=4),
    "noisy batch norm": lambda: nn.Sequential(nn.BatchNorm1d(16), DistributionNoise(seed=4)),
    "weight norm": lambda: anynorm.normalized(nn.Linear(16, 16), "weight"),
}


class Jitter(nn.Module):
    """Draws from the other two generators, as data augmentation inside a model may."""

    def forward(self, x):
        return x + 0.1 * random.random() + 0.1 * np.random.rand()


def network(middle):
    return nn.Sequential(
        nn.Linear(6, 16), MIDDLES[middle](), Jitter(), nn.ReLU(inplace=True), nn.Linear(16, 3)
    )


def trained(middle, optimizer, *, probed, after_backward=False):
    """Model, optimizer and recorder after a short run that depends on every random generator."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = network(middle)
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    loss_fn, x, y = nn.CrossEntropyLoss(), torch.randn(40, 6), torch.randint(0, 3, (40,))
    recorder = Recorder(model, loss_fn, optimizer, x, STEPS) if probed else None
    for step in range(STEPS):
        rows = torch.randint(0, 40, (12,))
        if recorder and not after_backward:
            recorder.before_step(step, x[rows], y[rows])
        optimizer.zero_grad()
        loss_fn(model(x[rows]), y[rows]).backward()
        if recorder and after_backward:
            recorder.before_step(step, x[rows], y[rows])
        optimizer.step()
    return model, optimizer, recorder


def final_state(model, optimizer):
    numpy_state = np.random.get_state()
    return {
        "tensors": copy.deepcopy(model.state_dict()),
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "torch": torch.get_rng_state(),
        "numpy": (numpy_state[1].tolist(), numpy_state[2]),
        "python": list(random.getstate()[1]),
        "modes": [module.training for module in model.modules()],
    }


@pytest.mark.parametrize("after_backward", [False, True], ids=["before", "after backward"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("middle", MIDDLES)
def test_a_probed_run_ends_bit_for_bit_like_an_unprobed_one(middle, optimizer, after_backward):
    model, used, _ = trained(middle, optimizer, probed=False)
    expected = final_state(model, used)
    model, used, recorder = trained(middle, optimizer, probed=True, after_backward=after_backward)
    assert recorder.result()["landscape"]["step"]
    torch.testing.assert_close(final_state(model, used), expected, rtol=0, atol=0)


@pytest.fixture(scope="module")
def result():
    return trained("batch norm", "sgd", probed=True)[2].result()


def test_the_layout_of_the_result(result):
    assert {name: set(table) for name, table in result.items()} == {
        "landscape": {
            *("step", "weight", "loss", "loss_low", "loss_high", "loss_range", "log_ratio"),
            *("distance_low", "distance_high", "relative_distance", "cosine", "beta", "eta_beta"),
        },
        "shift": {"step", "weight", "layers", "distance", "relative", "cosine"},
        "units": {
            *("step", "layers", "percentiles", "mean_shift", "log_std_shift", "wasserstein"),
            *("saturated", "dead", "whiteness"),
        },
        "flow": {"step", "weight", "layers", "kinds", "ratio", "max_over_min", "log_slope"},
    }
    assert set(result["units"]["percentiles"]) == {"p15", "p50", "p85"}


def test_every_column_has_one_entry_per_step_and_layer(result):
    for table in result.values():
        count, layers = len(table["step"]), table.get("layers")
        columns = {**table, **table.get("percentiles", {})}
        for name in set(columns) - {"step", "layers", "kinds", "percentiles"}:
            assert len(columns[name]) == count
            rows = [row for row in columns[name] if isinstance(row, list)]
            assert all(len(row) == len(layers) for row in rows)


def test_the_result_is_plain_data(result):
    assert json.loads(json.dumps(result))["landscape"]["beta"] == result["landscape"]["beta"]
    assert result["shift"]["layers"] == ["4"]
    assert result["flow"]["layers"] == ["0", "4"]
    assert result["flow"]["kinds"] == ["Linear", "Linear"]
    assert result["units"]["layers"] == ["3"]


def test_probing_is_repeatable_and_its_time_is_counted(result):
    again = trained("batch norm", "sgd", probed=True)[2]
    # As text, since nan equals itself there.
    assert json.dumps(again.result()) == json.dumps(result)
    assert again.seconds > 0


def test_the_seed_of_the_run_draws_the_steps():
    def steps(seed):
        torch.manual_seed(seed)
        model = nn.Linear(400, 400)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        x = torch.randn(4, 400)
        recorder = Recorder(model, nn.MSELoss(), optimizer, x, steps=40)
        for step in range(40):
            recorder.before_step(step, x, x)
        return recorder.result()["landscape"]["step"]

    assert steps(1) == steps(1)
    assert steps(1) != steps(2)
    assert len(steps(1)) < 10


@pytest.mark.parametrize(("width", "landscapes"), [(40, 51), (400, 16)])
def test_a_small_model_is_probed_more_often(width, landscapes):
    model = nn.Linear(width, width)
    optimizer, x = torch.optim.SGD(model.parameters(), 0.0), torch.randn(4, width)
    recorder = Recorder(model, nn.MSELoss(), optimizer, x, steps=200)
    for step in range(101):
        recorder.before_step(step, x, x)
    assert len(recorder.result()["landscape"]["step"]) == landscapes


def test_adaptive_optimizers_add_the_columns_of_their_own_update():
    landscape = trained("dropout", "adam", probed=True)[2].result()["landscape"]
    assert len(landscape["update_beta"]) == len(landscape["step"])


def test_a_diverging_run_is_measured_to_its_end():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e20)
    x, y = torch.randn(8, 2), torch.randn(8, 1)
    recorder = Recorder(model, nn.MSELoss(), optimizer, x, steps=4)
    for step in range(4):
        recorder.before_step(step, x, y)
        optimizer.zero_grad()
        nn.MSELoss()(model(x), y).backward()
        optimizer.step()
    beta = recorder.result()["landscape"]["beta"]
    assert len(beta) > 1
    assert not np.isfinite(beta[-1])


def test_chosen_layers_and_their_mistakes():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(8)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rest = (nn.MSELoss(), optimizer, torch.randn(4, 3), 10)
    recorder = Recorder(model, *rest, layers=["1", "7"])
    assert recorder.result()["shift"]["layers"] == ["1", "7"]
    with pytest.raises(UnknownNameError, match="weight layer"):
        Recorder(model, *rest, layers=["9"])


def test_a_model_without_hidden_units_is_measured_without_them():
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(4, 3), torch.randn(4, 1)
    recorder = Recorder(model, nn.MSELoss(), optimizer, x, steps=1)
    recorder.before_step(0, x, y)
    assert recorder.result()["units"]["step"] == []
    assert recorder.result()["shift"]["distance"] == [[]]
