"""Data sets: built in, and what users' functions return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from anynorm.errors import AnynormError
from anynorm.study.data import load, seeded
from anynorm.study.varied_digits import varied


def given(value: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load the data of a function that returns `value`."""
    monkeypatch.setattr("anynorm.study.data.lookup.resolve", lambda name, kind: lambda: value)
    load.cache_clear()
    return load("some.module:function")


def pair(x: Any, y: Any) -> Any:
    return (x, y), (x, y)


class Unreadable:
    """A dataset whose samples cannot be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        raise OSError("no such image")


def test_digits_are_standardised_and_split() -> None:
    data = load("digits")
    assert data.inputs == (1, 8, 8)
    assert (len(data.train_x), len(data.test_x), data.outputs) == (1297, 500, 10)
    assert abs(data.train_x.mean()) < 1e-5
    assert abs(data.train_x.std() - 1) < 1e-5
    assert data.test_y.unique().tolist() == list(range(10))


def test_digits_keep_images_and_labels_together() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    data = load("digits")
    scale, shift = data.train_x.max() - data.train_x.min(), data.train_x.min()
    rows = ((data.train_x - shift) / scale * 16).round().flatten(1).numpy()
    known = {tuple(image): label for image, label in zip(images, labels, strict=True)}
    assert all(known[tuple(row)] == y for row, y in zip(rows[:50], data.train_y[:50], strict=True))


def test_varied_digits_are_many_of_each_training_digit_and_one_of_each_held_out_one() -> None:
    data, plain = load("varied-digits"), load("digits")
    assert data.inputs == (1, 12, 12)
    assert (len(data.train_x), len(data.test_x), data.outputs) == (8 * 1297, 500, 10)
    assert torch.equal(data.train_y, plain.train_y.repeat(8))
    assert torch.equal(data.test_y, plain.test_y)
    assert abs(data.train_x.mean()) < 1e-5
    assert abs(data.train_x.std() - 1) < 1e-5
    load.cache_clear()
    assert torch.equal(load("varied-digits").train_x, data.train_x)


def test_a_varied_digit_is_the_digit_in_another_place_and_light() -> None:
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found, _ = varied(image, torch.tensor([3]), copies=200, seed=0)
    # The place that fits best has all of the digit but its noise, and places differ.
    places = found.squeeze(1).unfold(1, 8, 1).unfold(2, 8, 1)
    windows = places.reshape(200, 25, 64)
    pairs = torch.stack([torch.corrcoef(torch.cat((image.view(1, 64), w)))[0, 1:] for w in windows])
    best = pairs.max(dim=1)
    assert best.values.min() > 0.4
    assert best.values.median() > 0.85
    assert len(best.indices.unique()) == 25
    # The means of single images differ more than the noise explains: by their brightness.
    assert found.mean(dim=(1, 2, 3)).std() > 0.2


def test_gaussian_is_a_linear_regression() -> None:
    data = load("gaussian")
    matrix = torch.linalg.lstsq(data.train_x, data.train_y).solution
    # float32 sums of ten products of unit size.
    torch.testing.assert_close(data.test_x @ matrix, data.test_y, rtol=1e-4, atol=1e-4)
    assert data.task == "regression"


@pytest.mark.parametrize("form", ["tensors", "arrays", "two in a list", "dataset", "list"])
def test_accepted_forms(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    forms: dict[str, Any] = {
        "tensors": (x, y),
        "arrays": (x.double().numpy(), y.numpy()),
        "two in a list": [x, y],
        "dataset": TensorDataset(x, y),
        "list": [(a.numpy(), int(b)) for a, b in zip(x, y, strict=True)],
    }
    data = given((forms[form], forms[form]), monkeypatch)
    assert torch.equal(data.train_x, x)
    assert torch.equal(data.test_y, y)
    assert (data.task, data.outputs, data.inputs) == ("classification", 3, (3,))


def test_bytes_are_scaled_and_real_targets_regressed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([[0, 255], [51, 0]], dtype=np.uint8)
    data = given(pair(x, np.array([0.5, 1.5])), monkeypatch)
    torch.testing.assert_close(data.train_x, torch.tensor([[0.0, 1.0], [0.2, 0.0]]))
    assert (data.task, data.outputs, data.train_y.dtype) == ("regression", 1, torch.float32)


def test_one_label_for_each_position_is_language(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randint(5, (6, 3)), torch.randint(7, (6, 3))
    y[0, 0] = 6
    data = given(pair(x, y.int()), monkeypatch)
    assert (data.task, data.outputs, data.inputs) == ("language", 7, (3,))
    assert torch.equal(data.train_x, x)
    assert torch.equal(data.test_y, y)


def test_bytes_with_a_target_each_are_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    text = np.frombuffer(b"abcdefgh", dtype=np.uint8)
    data = given(pair(text[:-1].reshape(1, 7), text[1:].reshape(1, 7)), monkeypatch)
    assert (data.task, data.outputs, data.train_x.dtype) == ("language", 105, torch.int64)
    assert data.train_x.tolist() == [list(b"abcdefg")]


def test_labels_in_a_column_are_a_classification(monkeypatch: pytest.MonkeyPatch) -> None:
    data = given(pair(torch.zeros(3, 2), torch.tensor([[0], [1], [1]])), monkeypatch)
    assert (data.task, data.train_y.shape) == ("classification", (3,))


def test_loss_of_language_is_the_mean_over_all_positions() -> None:
    data = load("python-text")
    scores, targets = torch.randn(2, 64, data.outputs), data.train_y[:2]
    each = [F.cross_entropy(score, target) for score, target in zip(scores, targets, strict=True)]
    torch.testing.assert_close(data.loss(scores, targets), torch.stack(each).mean())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pair(torch.zeros(2, 2), torch.zeros(2, 3, 3).long()), r"each position of a sequence"),
        (None, "returned a NoneType"),
        (5, "returned an int. Expected two datasets"),
        (np.zeros((2, 3)), "returned a ndarray of length 2. Expected"),
        ((1, 2), "returned an int as a dataset"),
        (("ab", "cd"), "returned a str of length 2 as a dataset"),
        (pair(torch.zeros(3, 2), torch.zeros(4)), r"x of shape \(3, 2\) and y of shape \(4,\)"),
        (pair(torch.zeros(0, 2), torch.zeros(0)), "needs one row of features"),
        (pair(torch.tensor([[float("nan")]]), torch.zeros(1)), "not finite"),
        (pair(torch.zeros(1, 2), torch.tensor([float("inf")])), "y has values that are not finite"),
        (pair(torch.zeros(2, 2), torch.tensor([-1, 1])), "number the classes from 0"),
        (pair(torch.zeros(2, 2), torch.eye(2, dtype=torch.int64)), "not one-hot"),
        (pair(np.array([["a"]]), np.array([0])), "cannot become a tensor"),
        ((Unreadable(), Unreadable()), r"cannot be stacked .*OSError\('no such image'\)"),
        (([1, 2], [1, 2]), "cannot be stacked"),
        (
            ((torch.zeros(3, 2), torch.zeros(3)), (torch.zeros(3, 2), torch.zeros(3).long())),
            "training targets are torch.float32 .* but held-out ones torch.int64",
        ),
        (
            ((torch.zeros(3, 2), torch.zeros(3, 4)), (torch.zeros(3, 2), torch.zeros(3))),
            r"of shape \(4,\), but held-out ones",
        ),
        (
            ((torch.zeros(3, 2), torch.zeros(3)), (torch.zeros(3, 4), torch.zeros(3))),
            r"shape \(2,\), but held-out ones have \(4,\)",
        ),
    ],
)
def test_other_forms_are_refused(value: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnynormError, match=words):
        given(value, monkeypatch)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(AnynormError, match=r"no data set named 'digit'\. Did you mean \"digits\""):
        load("digit")


def test_torchvision_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anynorm.study.extras.find_spec", lambda name: None)
    with pytest.raises(AnynormError, match="pip install torchvision"):
        load("torchvision:MNIST")


def test_users_function_is_seeded_and_its_error_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data_a.py").write_text(
        "import numpy as np, random, torch\n"
        "def noisy():\n"
        "    x = torch.rand(4, 3) + np.random.rand() + random.random()\n"
        "    return (x, x[:, 0]), (x, x[:, 0])\n"
        "def broken(): raise RuntimeError('no disk')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    state = torch.get_rng_state()
    first = load("data_a:noisy").train_x
    load.cache_clear()
    assert torch.equal(first, load("data_a:noisy").train_x)
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(AnynormError, match=r"raised RuntimeError\('no disk'\)"):
        load("data_a:broken")


def test_seeded_puts_every_generator_back() -> None:
    before = torch.rand(1), np.random.rand()
    with seeded(3):
        torch.rand(1), np.random.rand()
    with seeded(5):
        one = torch.rand(1)
    with seeded(5):
        assert torch.equal(one, torch.rand(1))
    assert before[0] != torch.rand(1)
