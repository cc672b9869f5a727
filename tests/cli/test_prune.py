"""``anynorm prune``."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from anynorm import cli
from anynorm.cli.sources import model_from
from anynorm.surgery.prune import Plan, Pruned, prune
from anynorm.surgery.receipt import Receipt
from anynorm.surgery.weights import load_into, save_state


def run(words: str) -> int:
    return cli.main(f"prune --model nets:net --data nets:pairs {words}".split())


@pytest.fixture
def given(here: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that a fake of the library's function gets."""
    found: dict[str, Any] = {}

    def called(*arguments: Any, **options: Any) -> Pruned:
        found.update(inspect.signature(prune).bind(*arguments, **options).arguments)
        return Pruned(found["model"], Receipt("prune", (), (), {}), Plan({}, {}))

    monkeypatch.setattr(sys.modules["anynorm.surgery.prune"], "prune", called)
    return found


def test_what_is_not_given_is_left_to_the_library(given: dict[str, Any]) -> None:
    assert run("--gap") == 0
    assert set(given) == {"model", "example", "gap", "recalibrate", "forward", "inplace"}
    assert len(given["recalibrate"]) == 2


def test_every_option_becomes_an_argument(given: dict[str, Any]) -> None:
    words = "--ratio 0.5 --min-channels 2 --multiple 4 --ignore 3 --no-absorb --no-recalibrate"
    assert run(f"{words} --refit --distill 9 --tolerance 2") == 0
    assert (len(given["refit"]), given["distill"]) == (2, 9)
    assert (given["ratio"], given["least"], given["multiple"]) == (0.5, 2, 4)
    assert (given["ignore"], given["absorb"], given["recalibrate"]) == (["3"], False, None)
    assert given["tolerance"] == 2
    other = {"parameters", "flops", "gap"}
    assert set(inspect.signature(prune).parameters) - set(given) == other


@pytest.mark.parametrize(("words", "how"), [("--absorb", True), ("--absorb channel", "channel")])
def test_how_constants_are_absorbed(words: str, how: object, given: dict[str, Any]) -> None:
    assert run(f"--gap {words}") == 0
    assert given["absorb"] == how


def test_an_unknown_way_to_absorb(given: dict[str, Any]) -> None:
    assert run("--gap --absorb bias") == 2


@pytest.mark.parametrize("goal", ["parameters", "flops"])
def test_budgets(goal: str, given: dict[str, Any]) -> None:
    assert run(f"--{goal} 0.25") == 0
    assert given[goal] == 0.25


def test_the_picture_is_drawn_of_the_model_before_the_cut(here: Path) -> None:
    sparse()
    assert run("--weights a.safetensors --gap --picture new/scales.svg") == 0
    assert "2 (50%) lie below the gap" in Path("new/scales.svg").read_text("utf-8")


@pytest.mark.parametrize("words", ["", "--ratio 0.5 --gap", "--plan a.json --ratio 0.5"])
def test_how_much_is_said_in_one_way(
    words: str, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert "anynorm: `anynorm prune`: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["--min-channels 2", "--plan-out b.json", "--no-absorb", "--refit"]
)
def test_a_plan_settles_what_is_cut(
    words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"--plan a.json {words}") == 2
    assert f"leave out {words.replace('no-', '').split()[0]}." in capsys.readouterr().err


def sparse() -> None:
    """Write weights in which half of the channels can go."""
    model = model_from("nets:net")
    model[1].weight.data = torch.tensor([1.0, 0.01, 1.0, 0.01])
    save_state(model, "a.safetensors")


def test_the_plan_is_written_and_applied(here: Path) -> None:
    sparse()
    words = "--weights a.safetensors --ratio 0.5 --plan-out plan.json --out b.safetensors"
    assert run(words) == 0
    pruned = model_from("nets:net", "b.safetensors", plan="plan.json")
    assert pruned[0].weight.shape == (2, 1, 3, 3)
    assert run("--weights a.safetensors --plan plan.json --receipt c.json --out c.safetensors") == 0
    load_into(pruned, "c.safetensors")
    changed = json.loads(Path("c.json").read_text())["changed"]
    assert {"layer": "0.weight", "text": "cut to (2, 1, 3, 3)"} in changed
    assert {"layer": "1", "text": "statistics of 2 batches"} in changed


def test_pruned_weights_need_their_plan(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse()
    run("--weights a.safetensors --ratio 0.5 --plan-out plan.json --out b.safetensors")
    words = "freeze --model nets:net --weights b.safetensors"
    assert cli.main(words.split()) == 2
    assert "--pruned-by" in capsys.readouterr().err
    assert cli.main(f"{words} --pruned-by plan.json".split()) == 0


def test_neither_plan_nor_weights_of_what_was_rolled_back(here: Path) -> None:
    sparse()
    words = "--weights a.safetensors --ratio 0.5 --tolerance 0"
    assert run(f"{words} --plan-out plan.json --out b.safetensors") == 1
    assert not Path("plan.json").exists()
    assert not Path("b.safetensors").exists()


def test_a_plan_of_another_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Plan({"0.weight": {0: (1,)}}, {"0.weight": (9, 9)}).write("plan.json")
    assert run("--plan plan.json") == 2
    assert "Traceback" not in capsys.readouterr().err
