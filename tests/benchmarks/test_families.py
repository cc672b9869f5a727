"""Families of models: norms are known, recognized, or refused by name, and no result is wrong."""

import pytest
import torch
from benchmarks import families
from benchmarks.families import Unnamed, ready, table, tried, unnamed
from benchmarks.zoo_families import FAMILIES
from benchmarks.zoo_parts import Architecture
from torch import nn

from anynorm.errors import AnynormError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
ROWS = {row.name: row for row in FAMILIES}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class Scaled(nn.Module):
    """Normalizes, and then does what no specification says."""

    def forward(self, x):
        return (x / x.std(-1, keepdim=True)).cumsum(-1)


class SomeNorm(nn.Module):
    def forward(self, x):
        return 2 * x


def written(*layers):
    return Architecture("written", lambda: nn.Sequential(*layers), of_rows)


def of_rows(n):
    return {"input": torch.randn(n, 3, 8)}


def test_modules_without_a_specification_are_named_with_the_reason():
    layers = (nn.LayerNorm(8), Scaled(), SomeNorm(), nn.Linear(8, 8))
    found = {one.kind: one for one in unnamed(*ready(written(*layers)))}
    assert set(found) == {"Scaled", "SomeNorm"}
    assert found["Scaled"].normalizes
    assert found["SomeNorm"] == Unnamed("SomeNorm", False, "it depends on the scale of its input")


def test_gains_and_shifts_are_nontrivial():
    model, _ = ready(written(nn.LayerNorm(8), nn.BatchNorm1d(3)))
    for layer in model:
        assert not (layer.weight == 1).any()
        assert not (layer.bias == 0).any()
    assert not (model[1].running_mean == 0).any()


def test_errors_and_differences_are_wrong_and_refusals_are_not(monkeypatch):
    def fails(model, example):
        raise ValueError("broken")

    def refuses(model, example):
        raise AnynormError("no such thing")

    monkeypatch.setattr(families, "COLUMNS", {"one": fails, "two": refuses})
    found = tried(written(nn.LayerNorm(8)))
    assert found.cells == {"one": "wrong", "two": "refused: no such thing"}
    assert found.wrong == {"one": "ValueError('broken')"}
    assert "1 families, 1 wrong.\n- written, one: ValueError('broken')" in table({"written": found})


def check(name):
    found = tried(ROWS[name])
    assert not found.wrong
    assert int(found.cells["by class"]) + int(found.cells["by behaviour"]) > 0 or found.unnamed
    return found


def test_enough_families():
    assert len(ROWS) == len(FAMILIES) >= 40


@pytest.mark.parametrize(("name", "known", "recognized"), [("gemma2", 0, 9), ("vit", 7, 0)])
def test_a_handful(name, known, recognized):
    pytest.importorskip("transformers")
    cells = check(name).cells
    assert (cells["by class"], cells["by behaviour"]) == (str(known), str(recognized))
    assert (cells["float32"], cells["bfloat16"]) == ("equal", "equal")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")  # Mochi asks for float32
@pytest.mark.parametrize("name", ROWS)
def test_every_family(name):
    pytest.importorskip("transformers")
    pytest.importorskip("diffusers")
    check(name)
