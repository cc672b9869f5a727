"""``anynorm doctor``."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from anynorm import cli
from anynorm.cli.sources import model_from
from anynorm.doctor import doctor
from anynorm.surgery.receipt import Note, Receipt, Result
from anynorm.surgery.weights import load_into, manifest, save_state
from anynorm.surgery.weights.manifest import KEY


class FakeDiagnosis:
    """What the library returns, without the measurements."""

    def __init__(self, model: nn.Module, status: int, rolled_back: bool) -> None:
        self.model, self.status, self.rolled_back = model, status, rolled_back

    def table(self) -> None:
        print("the table")

    def report(self, path: str) -> None:
        Path(path).write_text("the page")

    def to_dict(self) -> dict[str, Any]:
        return {"effect": float("inf")}

    def fix(self, inplace: bool = False, *, accept_data: bool = False) -> Result:
        words = "repaired" + (" by these data" if accept_data else "")
        receipt = Receipt("doctor", (Note("1", words),), (), {}, rolled_back=self.rolled_back)
        return Result(self.model, receipt)


def call(
    monkeypatch: pytest.MonkeyPatch, words: str, status: int = 0, rolled_back: bool = False
) -> tuple[int, dict[str, Any]]:
    """Run a command line; returns the status and what the library was called with."""
    given: dict[str, Any] = {}

    def fake(*arguments: Any, **options: Any) -> FakeDiagnosis:
        given.update(inspect.signature(doctor).bind(*arguments, **options).arguments)
        return FakeDiagnosis(given["model"], status, rolled_back)

    monkeypatch.setattr(sys.modules["anynorm.doctor"], "doctor", fake)
    return cli.main(f"doctor --model nets:net {words}".split()), given


def test_options_become_the_arguments_of_one_call(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(model_from("nets:net").state_dict(), "ema.pt")
    words = "--data nets:pairs --target nets:dicts --loss nets:loss --optimizer nets:sgd"
    words += " --averaged ema.pt --source nets:bare --forward nets:twice"
    status, given = call(
        monkeypatch, f"{words} --accumulation 4 --steps 9 --batch-axis 0 --checks 1 2"
    )
    assert status == 0
    assert set(inspect.signature(doctor).parameters) - set(given) == {"group", "loader"}
    assert (len(given["batches"]), len(list(given["target"]))) == (2, 2)
    assert isinstance(given["optimizer"], torch.optim.SGD)
    assert given["optimizer"].param_groups[0]["params"][0] is given["model"][0].weight
    assert given["averaged"] is not given["model"]
    assert isinstance(given["source"][0], nn.Linear)
    assert (given["loss"].__name__, given["forward"].__name__) == ("loss", "twice")
    assert (given["accumulation"], given["steps"], given["checks"]) == (4, 9, [1, 2])
    assert given["batch_axis"] == 0


def test_what_is_not_given_is_left_to_the_library(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, given = call(monkeypatch, "")
    assert not {"accumulation", "steps", "checks"} & set(given)
    assert given["batches"] is None
    assert given["model"].training  # as the factory left it


@pytest.mark.parametrize("status", [0, 1, 3])
def test_the_status_is_that_of_the_diagnosis(
    status: int, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--html new/a.html --json new/a.json"
    assert call(monkeypatch, words, status)[0] == status
    assert "the table" in capsys.readouterr().out
    assert Path("new/a.html").read_text() == "the page"
    assert json.loads(Path("new/a.json").read_text()) == {"effect": None}


def test_repairs_are_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--fix --out a.safetensors --receipt a.json"
    assert call(monkeypatch, words, status=1)[0] == 1
    assert "1: repaired" in capsys.readouterr().out
    assert json.loads(Path("a.json").read_text())["verb"] == "doctor"
    load_into(model_from("nets:net"), "a.safetensors")


def test_data_are_accepted_with_repairs_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--fix --accept-data", status=1)[0] == 1
    assert "repaired by these data" in capsys.readouterr().out
    assert call(monkeypatch, "--accept-data") == (2, {})
    assert "add --fix" in capsys.readouterr().err


def test_repairs_that_were_rolled_back(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--fix --out a.safetensors"
    assert call(monkeypatch, words, status=0, rolled_back=True)[0] == 1
    assert not Path("a.safetensors").exists()


def test_nothing_is_written_without_a_repair(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, given = call(monkeypatch, "--out a.safetensors")
    assert (status, given) == (2, {})
    assert "add --fix" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "--html .",
        "--json nets.py/a.json",
        "--target nets:number",
        "--averaged none.pt",
        "--optimizer nets:net",
        "--loss loss",
    ],
)
def test_bad_input_could_not_run(
    words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, given = call(monkeypatch, words)
    assert (status, given) == (2, {})
    assert "Traceback" not in capsys.readouterr().err


def spoilt() -> None:
    """Write weights with statistics that are not finite."""
    state = model_from("nets:net").state_dict()
    torch.save({**state, "1.running_var": torch.full((4,), torch.nan)}, "nan.pt")


def test_weights_that_are_not_finite_are_a_finding(here: Path) -> None:
    spoilt()
    words = "doctor --model nets:net --weights nan.pt --checks 9 --json a.json"
    assert cli.main(words.split()) == 1
    found = json.loads(Path("a.json").read_text())["findings"]
    assert [(one["check"], one["layer"]) for one in found] == [(9, "1")]


def test_a_diagnosis_and_its_repair(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoilt()
    words = "doctor --model nets:net --data nets:pairs --checks 9"
    assert cli.main(f"{words} --weights nan.pt --fix --out a.safetensors".split()) == 1
    assert "statistics of 2 batches" in capsys.readouterr().out
    assert cli.main(f"{words} --weights a.safetensors".split()) == 0


def test_other_normalizers_than_recorded_are_a_finding(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = model_from("nets:loose")
    save_state(trained, "a.safetensors")
    status, given = call(monkeypatch, "--weights a.safetensors")
    assert status == 0
    assert given["manifest"] == manifest(trained)
    assert torch.equal(given["model"][0].weight, trained[0].weight)
    assert call(monkeypatch, "--weights a.safetensors --ignore-manifest")[1]["manifest"] is None
    torch.save(trained.state_dict(), "a.pt")
    assert call(monkeypatch, "--weights a.pt")[1]["manifest"] is None
    assert capsys.readouterr().err == ""
    save_file(trained.state_dict(), "b.safetensors", metadata={KEY: "broken"})
    assert call(monkeypatch, "--weights b.safetensors")[1]["manifest"] is None
    assert "the manifest in 'b.safetensors': JSONDecodeError" in capsys.readouterr().err


def test_the_check_of_the_manifest_needs_only_the_weights(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(model_from("nets:loose"), "a.safetensors")
    words = "doctor --model nets:net --weights a.safetensors --checks 32"
    assert cli.main(words.split()) == 1
    assert "was recorded as 0.001" in " ".join(capsys.readouterr().out.split())
