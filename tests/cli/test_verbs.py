"""The commands that change a model."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anynorm import cli
from anynorm.cli.sources import model_from
from anynorm.surgery.convert import convert
from anynorm.surgery.fold import fold
from anynorm.surgery.freeze import freeze
from anynorm.surgery.recalibrate import recalibrate
from anynorm.surgery.receipt import Note, Receipt, Result
from anynorm.surgery.weights import Manifest, load_into, load_state, save_state

VERBS = {"convert": convert, "freeze": freeze, "recalibrate": recalibrate, "fold": fold}
# Those of a command line without any option of its own.
NEEDED = {"convert": " --to group:groups=2", "freeze": "", "recalibrate": "", "fold": ""}


def fake(verb: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    """Put a verb that only notes its arguments in the place of the real one."""
    given: dict[str, Any] = {}
    receipt = {"changed": (Note("1", "done"),), "refused": (), "facts": {}, **changes}

    def called(*arguments: Any, **options: Any) -> Result:
        given.update(inspect.signature(VERBS[verb]).bind(*arguments, **options).arguments)
        return Result(given["model"], Receipt(verb, **receipt))

    # The package has functions by the names of its modules.
    monkeypatch.setattr(sys.modules[f"anynorm.surgery.{verb}"], verb, called)
    return given


def run(words: str) -> int:
    return cli.main(words.split())


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_not_given_is_left_to_the_library(
    verb: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = fake(verb, monkeypatch)
    assert run(f"{verb} --model nets:net --data nets:pairs{NEEDED[verb]}") == 0
    own = set(given) - {"model", "example", "batches", "to", "options"}
    assert own - {"progress"} == {"forward", "inplace"}
    assert isinstance(given["model"], nn.Module)
    assert not given["model"].training


def test_the_first_batch_is_the_example(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = fake("fold", monkeypatch)
    run("fold --model nets:net --data nets:stream")
    assert given["example"].shape == (4, 1, 6, 6)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "convert --to group:groups=2 --source batch sync --layers 1 --heal --distill 9 "
            "--tolerance 0.5",
            {
                "layers": ["1"],
                "distill": 9,
                "to": "group",
                "options": {"groups": 2},
                "source": ["batch", "sync"],
                "tolerance": 0.5,
            },
        ),
        (
            "freeze --no-affine --layers 1 --tolerance 1e-3",
            {"affine": False, "layers": ["1"], "tolerance": 1e-3},
        ),
        (
            "recalibrate --passes 3 --layers 1 2 --memory 1e9 --no-progress",
            {"passes": 3, "layers": ["1", "2"], "memory": 1e9, "progress": False},
        ),
        ("fold --tolerance 0.1", {"tolerance": 0.1}),
    ],
)
def test_every_argument_has_an_option(
    words: str, expected: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb = words.split()[0]
    given = fake(verb, monkeypatch)
    assert run(f"{words} --model nets:net --data nets:stream --forward nets:twice") == 0
    assert {name: given[name] for name in expected} == expected
    assert given["forward"].__name__ == "twice"
    left_out = set(inspect.signature(VERBS[verb]).parameters) - set(given)
    assert left_out == ({"group"} if verb == "recalibrate" else set())


def test_healing_needs_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert --model nets:net --to layer --heal") == 2
    assert "give --data" in capsys.readouterr().err


def test_the_receipt_is_printed_and_both_files_are_written(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "fold --model nets:net --data nets:dicts --out new/a.safetensors --receipt new/a.json"
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert "fold: 1 changed, 0 refused" in shown
    assert "weights: new/a.safetensors" in shown
    assert "receipt: new/a.json" in shown
    assert json.loads(Path("new/a.json").read_text())["changed"][0]["layer"] == "1"
    folded = fold(model_from("nets:net").eval(), torch.randn(2, 1, 6, 6)).model
    load_into(folded, "new/a.safetensors")
    assert "They load into a model that was changed in the same way" in shown


def test_recalibrated_weights_fit_the_same_factory(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(model_from("nets:net"), "a.safetensors")
    words = "recalibrate --model nets:net --weights a.safetensors --data nets:pairs"
    assert run(f"{words} --out b.safetensors") == 0
    assert "They load into a model that was changed" not in capsys.readouterr().out
    before, after = load_state("a.safetensors"), load_state("b.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    load_into(model_from("nets:net"), "b.safetensors")


def test_weights_of_other_normalizers_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(model_from("nets:loose"), "a.safetensors")
    words = "freeze --model nets:net --weights a.safetensors"
    assert run(words) == 2
    assert "ε is 1e-05 and was recorded as 0.001 ('1')" in capsys.readouterr().err
    assert run(f"{words} --ignore-manifest") == 0
    assert run("freeze --model nets:loose --weights a.safetensors") == 0


def test_what_a_conversion_computes_is_not_what_the_factory_makes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names and shapes of its weights are those of the factory's model."""
    words = "convert --model nets:batch_alone --to instance --out a.safetensors"
    assert run(words) == 0
    assert "They load into a model that was changed" in capsys.readouterr().out
    assert run("freeze --model nets:batch_alone --weights a.safetensors") == 2
    assert "recorded as 'n c [...]'" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["pairs", "once"])
def test_the_data_show_what_other_norms_compute(data: str, here: Path) -> None:
    """Data that end are no reason to lose the weights."""
    words = f"recalibrate --model nets:foreign --data nets:{data} --passes 1 --out a.safetensors"
    assert run(words) == 0
    about = Manifest.read("a.safetensors")
    assert list(about.layers) == (["1", "2"] if data == "pairs" else ["1"])
    assert about.unknown == (() if data == "pairs" else ("2",))


def test_the_same_command_gives_the_same_weights(here: Path) -> None:
    model_from("nets:net")  # what is random at its import happens once
    state = torch.get_rng_state()
    for name in ("a", "b"):
        run(f"recalibrate --model nets:net --data nets:pairs --out {name}.safetensors")
    one, other = load_state("a.safetensors"), load_state("b.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(state, torch.get_rng_state())


def test_what_was_rolled_back_is_not_written(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "fold --model nets:net --data nets:pairs --tolerance 1e-30"
    assert run(f"{words} --out a.safetensors --receipt a.json") == 1
    shown = capsys.readouterr()
    assert "rolled back: the change was undone" in shown.out
    assert "no weights were written" in shown.err
    assert json.loads(Path("a.json").read_text())["rolled_back"] is True
    assert not Path("a.safetensors").exists()


def test_names_of_layers_cannot_change_the_terminal(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake("freeze", monkeypatch, changed=(Note("\x1b[31m[bold]x", "frozen"),))
    assert run("freeze --model nets:net") == 0
    assert r"  \x1b[31m[bold]x: frozen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data nets:empty", "there are no batches to measure on; give at least one"),
        ("--data nets:dry --memory 0", "returns the same iterator each time"),
        ("--data nets:pairs --out a.pt", "name the file 'a.safetensors'"),
        ("--data nets:pairs --out nets.py/a.safetensors", "cannot be written"),
        ("--data nets:pairs --receipt .", "the receipt '.' cannot be written"),
        ("--data nets:pairs --weights none.pt", "'none.pt': this file does not exist"),
        ("--data nets:pairs --weights other.pt", "'other.pt' do not fit Sequential."),
        ("--data nets:pairs --weights nan.pt", "infinite values in 1: '0.bias'"),
        ("--data nets:pairs --weights whole.pt", "would run code from the file"),
        ("--data nets:pairs --forward nets:loss", "raised AttributeError"),
    ],
)
def test_bad_input(words: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_from("nets:net")
    torch.save(nn.Linear(2, 2).state_dict(), "other.pt")
    torch.save(model, "whole.pt")
    torch.save({**model.state_dict(), "0.bias": torch.full((4,), torch.nan)}, "nan.pt")
    before = sorted(file.name for file in here.iterdir())
    assert run(f"recalibrate --model nets:net {words}") == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert {file.name for file in here.iterdir()} - {"__pycache__"} <= set(before)


def test_values_that_are_not_finite_can_be_allowed(here: Path) -> None:
    state = model_from("nets:net").state_dict()
    torch.save({**state, "1.running_mean": torch.full((4,), torch.nan)}, "nan.pt")
    words = "recalibrate --model nets:net --weights nan.pt --data nets:pairs --out a.safetensors"
    assert run(words) == 2
    assert run(f"{words} --allow-non-finite") == 0
    assert load_state("a.safetensors")["1.running_mean"].isfinite().all()
