"""Cells: equal configurations have equal keys, and bad values are refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell, parse_norm


def make(**changes: Any) -> Cell:
    base = {"subject": "mlp-relu", "data": "digits", "norm": "batch", "lr": 0.1}
    return Cell(**{**base, "steps": 10, "seed": 0, **changes})


def test_every_field_changes_the_key() -> None:
    other = {
        "subject": "cnn",
        "data": "gaussian",
        "norm": "layer",
        "norm_options": (("groups", 2),),
        "lr": 0.2,
        "init": 2.0,
        "batch": 32,
        "placement": "after",
        "affine": False,
        "noise": True,
        "optimizer": "adam",
        "weight_decay": 0.1,
        "warmup": 5,
        "steps": 11,
        "seed": 1,
        "probes": True,
        "source": "abc",
    }
    assert set(other) == {field.name for field in dataclasses.fields(Cell)}
    keys = {make(**{name: value}).key for name, value in other.items()}
    assert len(keys | {make().key}) == len(other) + 1


@pytest.mark.parametrize(("one", "same"), [(1, 1.0), (0.1 * 0.3, 0.03), (0.1 * 30 / 60, 0.05)])
def test_numbers_that_mean_the_same_give_the_same_cell(one: float, same: float) -> None:
    assert make(lr=one) == make(lr=same)
    assert make(lr=one).key == make(lr=same).key


def test_order_of_options_does_not_matter() -> None:
    options = (("p", 3), ("constant", 1.0))
    assert make(norm_options=options).key == make(norm_options=options[::-1]).key


def test_key_is_the_same_in_another_process() -> None:
    code = f"from anynorm.study.cell import Cell; print(Cell.from_dict({make().to_dict()!r}).key)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == make().key


def test_dict_round_trip() -> None:
    cell = make(norm="group", norm_options=(("groups", 4),), noise=True)
    assert Cell.from_dict(cell.to_dict()) == cell
    assert cell.label == "group(groups=4) + noise"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.0}, "lr is 0.0; it must be positive"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"init": "x"}, "init is 'x'; it must be a number"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be 0 or more and finite"),
        ({"weight_decay": True}, "weight_decay is True; it must be a number"),
        ({"warmup": -1}, "warmup is -1; it must be a whole number, 0 or more"),
        ({"batch": 0}, "batch is 0; it must be a whole number, 1 or more"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"placement": "befor"}, 'Did you mean "before"'),
        ({"optimizer": "sgdd"}, 'Did you mean "sgd"'),
    ],
)
def test_bad_values_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AnynormError, match=words.replace("(", r"\(")):
        make(**changes)


def test_label_says_that_gamma_and_beta_are_fixed() -> None:
    cell = make(norm="group", norm_options=(("groups", 4),), affine=False, noise=True)
    assert cell.label == "group(groups=4), no γ β + noise"


def test_a_description_without_newer_fields_has_their_defaults() -> None:
    old = make().to_dict()
    for name in ("affine", "weight_decay", "warmup"):
        del old[name]
    assert Cell.from_dict(old) == make()


def test_unknown_field_is_refused() -> None:
    with pytest.raises(AnynormError, match="no field 'colour'"):
        Cell.from_dict({**make().to_dict(), "colour": "red"})


def test_parse_norm_reads_numbers_flags_and_words() -> None:
    name, options = parse_norm("lp-batch:p=3,eps=1e-3,affine=False,constant=gaussian")
    assert name == "lp-batch"
    assert options == (("p", 3), ("eps", 1e-3), ("affine", False), ("constant", "gaussian"))


@pytest.mark.parametrize("text", ["group:groups", "group:=3", "group:groups="])
def test_parse_norm_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(AnynormError, match="write name:option=value"):
        parse_norm(text)
