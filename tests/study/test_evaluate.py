"""Loss and accuracy in both modes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anynorm.study.data import Data, load
from anynorm.study.evaluate import (
    IN_EVAL_MODE,
    Scores,
    chance,
    in_other_modes,
    predict,
    scores,
)


def data(task: str = "classification", samples: int = 23) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 4, generator=generator)
    y = x.argmax(dim=1) if task == "classification" else 2 * x
    return Data(x, y, x + 0.1, y, task, 4)


def everything(model: nn.Module, data: Data, size: int) -> Scores:
    return scores(model, data) | in_other_modes(model, data, size)[0]


def state(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def test_a_perfect_model_scores_one_everywhere() -> None:
    found = everything(nn.Identity(), data(), 5)
    assert {found[name] for name in found if "accuracy" in name} == {1.0}
    expected = nn.functional.cross_entropy(data().train_x, data().train_y).item()
    assert found["train_loss"] == expected


def test_regression_has_losses_and_no_accuracies() -> None:
    found = everything(nn.Identity(), data("regression"), 5)
    assert found["train_loss"] == data("regression").train_x.square().mean().item()
    assert {found[name] for name in found if "accuracy" in name} == {None}


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    found = data()
    assert chance(found) == max(found.test_y.tolist().count(k) for k in range(4)) / 23
    assert chance(data("regression")) is None


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    before, random = state(model), torch.get_rng_state()
    everything(model, data(), 5)
    assert all(map(torch.equal, before, state(model)))
    assert torch.equal(random, torch.get_rng_state())
    assert (model.training, model[1].training) == (True, False)


def test_train_mode_sees_batches_of_the_training_size_and_every_sample_once() -> None:
    sizes: list[int] = []
    model = nn.BatchNorm1d(4)
    model.register_forward_hook(lambda _, args, output: sizes.append(len(args[0])))
    x = data().train_x
    outputs = predict(model, x, size=5, train=True)
    assert sizes == [5, 5, 5, 5, 5]
    assert outputs.shape == x.shape
    expected = nn.BatchNorm1d(4)(x[-5:])[-3:]
    assert torch.equal(outputs[-3:], expected)


def test_batch_norm_with_wrong_running_statistics_is_repaired_by_recomputing() -> None:
    model = nn.BatchNorm1d(4)
    model.running_var[0] = 1e-6  # the first class wins or loses almost everywhere
    found = everything(model, data(samples=200), 50)
    assert found["test_accuracy"] < 0.7
    assert found["test_accuracy_recalibrated"] > 0.85
    assert found["test_accuracy_train_mode"] > 0.85


def test_large_training_sets_are_sampled_evenly() -> None:
    x = torch.arange(25_000, dtype=torch.float32).unsqueeze(1)
    seen: list[torch.Tensor] = []
    model = nn.Identity()
    model.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    assert set(scores(model, Data(x, x, x[:1], x[:1], "regression", 1))) == set(IN_EVAL_MODE)
    assert torch.equal(torch.cat(seen).unique(), x[::3].flatten())


def language(samples: int, length: int) -> Data:
    x = torch.randint(5, (samples, length), generator=torch.Generator().manual_seed(0))
    return Data(x, x, x, x, "language", 5)


def test_accuracy_of_language_is_the_share_of_characters() -> None:
    data = language(4, 10)
    model = nn.Embedding.from_pretrained(torch.eye(5))
    model.weight[0], model.weight[1] = model.weight[1].clone(), model.weight[0].clone()
    expected = (data.test_x > 1).double().mean().item()
    found = everything(model, data, 2)
    accuracies = [found[name] for name in found if "accuracy" in name]
    assert accuracies == [pytest.approx(expected)] * 4


def test_of_long_sequences_few_are_evaluated() -> None:
    data, seen = language(25, 5000), []
    model = nn.Embedding.from_pretrained(torch.eye(5))
    model.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    scores(model, data)
    assert [part.tolist() for part in seen] == [data.train_x[::13].tolist()] * 2


def test_what_each_item_gave_agrees_with_the_score() -> None:
    digits = load("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    found, items = in_other_modes(model, digits, 60)
    assert set(items) == {"test_accuracy", "test_accuracy_recalibrated"}
    right = items["test_accuracy"]
    assert len(right) == len(digits.test_x)
    assert right.count("1") / len(right) == pytest.approx(scores(model, digits)["test_accuracy"])
    assert found["test_loss_recalibrated"] == pytest.approx(scores(model, digits)["test_loss"])


def test_items_of_a_regression_are_losses() -> None:
    gaussian = load("gaussian")
    _, items = in_other_modes(nn.Linear(10, 10), gaussian, 100)
    losses = items["test_loss"]
    assert isinstance(losses, list)
    assert len(losses) == len(gaussian.test_x)
