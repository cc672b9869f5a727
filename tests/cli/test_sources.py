"""What a command line names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from anynorm.cli.sources import batches_from, function_from, model_from
from anynorm.errors import AnynormError
from anynorm.study.data import load


def test_a_model_with_its_weights(here: Path) -> None:
    model = model_from("nets:net")
    torch.save(model.state_dict(), "a.pt")
    assert torch.equal(model_from("nets:net", "a.pt")[0].weight, model[0].weight)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nets:broken", r"with no arguments raised RuntimeError\('no \[bold\]weights'\)"),
        ("nets:wide", "cannot be called with no arguments: missing a required argument: 'width'"),
        ("nets:number", "returned an int; the factory must return a torch.nn.Module"),
        ("nets:nte", "has no attribute 'nte'. Did you mean"),
        ("nets", "write package.module:factory"),
        ("missing_nets:net", "there is no module named 'missing_nets'"),
    ],
)
def test_factories_that_cannot_be_used(name: str, words: str, here: Path) -> None:
    with pytest.raises(AnynormError, match=words):
        model_from(name)


def test_digits() -> None:
    batches = list(batches_from("digits"))
    assert sum(len(x) for x, _ in batches) == 1297
    assert all(x.shape[1:] == (1, 8, 8) and len(x) == len(y) for x, y in batches)


@pytest.mark.parametrize("name", ["pairs", "dicts", "stream"])
def test_batches_can_be_gone_through_again(name: str, here: Path) -> None:
    batches = batches_from(f"nets:{name}")
    assert [len(list(batches)) for _ in range(3)] == [2, 2, 2]


def test_a_list_is_given_as_it_is(here: Path) -> None:
    assert isinstance(batches_from("nets:pairs"), list)  # a DataLoader knows its data set's size


@pytest.mark.parametrize(
    ("name", "sizes"), [("sets", [64]), ("datasets", [64]), ("loaders", [13] * 5)]
)
def test_of_a_training_and_a_held_out_set_the_first_gives_batches(
    name: str, sizes: list[int], here: Path
) -> None:
    batches = list(batches_from(f"nets:{name}"))
    assert [len(x) for x, _ in batches] == sizes
    assert all(x.shape[1:] == (1, 6, 6) and len(x) == len(y) for x, y in batches)


def test_built_in_data_of_the_study() -> None:
    assert [tuple(x.shape) for x, _ in batches_from("gaussian")][:2] == [(64, 10), (64, 10)]


@pytest.mark.parametrize("name", ["stream", "tensor", "loaders"])
def test_a_study_says_what_it_needs_instead_of_batches(name: str, here: Path) -> None:
    with pytest.raises(AnynormError, match=r"Expected two datasets \(training, held-out\)"):
        load(f"nets:{name}")


def test_an_iterator_that_is_made_once_runs_dry(here: Path) -> None:
    batches = batches_from("nets:dry")
    assert len(list(batches)) == 2
    with pytest.raises(AnynormError, match="returns the same iterator each time"):
        list(batches)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digit", "there is no data set named 'digit'. Did you mean \"digits\""),
        ("nets:number", "returned an int; return an iterable of batches"),
        ("nets:tensor", r"returned a Tensor; .* Put a single batch into a list: \[batch\]"),
        ("nets:broken", "raised RuntimeError"),
    ],
)
def test_data_that_cannot_be_used(name: str, words: str, here: Path) -> None:
    with pytest.raises(AnynormError, match=words):
        batches_from(name)


def test_functions(here: Path) -> None:
    assert function_from(None, "forward") is None
    twice = function_from("nets:twice", "forward")
    assert twice is not None
    assert torch.equal(twice(nn.Identity(), (torch.ones(2), 0)), torch.full((2,), 2.0))
    with pytest.raises(AnynormError, match="forward 'twice': write package"):
        function_from("twice", "forward")


def test_what_else_a_checkpoint_holds_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = model_from("nets:net").state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, "both.pt")
    model_from("nets:net", "both.pt")
    assert "also holds 'state_dict_ema'" in capsys.readouterr().err
    model_from("nets:net", "both.pt", key="state_dict_ema")
    assert capsys.readouterr().err == ""
