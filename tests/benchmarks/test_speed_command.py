"""``python -m benchmarks.speed``: what is asked of a run, and what becomes of the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.result_files import write
from benchmarks.speed import run
from benchmarks.speed.__main__ import main
from benchmarks.speed.grids import CASES, GRIDS
from unmeasured import gpu_result, processor_results

from anynorm.errors import AnynormError

Calls = list[dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the library is asked; it answers with results that nobody measured."""
    seen: Calls = []

    def bench(cases: Any, **options: Any) -> Any:
        seen.append({"cases": cases, **options})
        result = {**processor_results()[len(seen) - 1], "failed": []}
        opening = {**result["about"], "settings": {"not_installed": ["jax"]}}
        for told in (opening, result["cases"][0]):
            options["tell"](told)
        return result

    monkeypatch.setattr(run, "bench", bench)
    return seen


def test_the_cases_are_chosen_by_their_fields(calls: Calls) -> None:
    main(["--normalizer", "layer", "rms", "--dtype", "bf16"])
    assert {(case.normalizer, case.dtype) for case in calls[0]["cases"]} == {
        ("layer", "bf16"),
        ("rms", "bf16"),
    }


def test_both_settings_of_a_processors_allocator(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "result.json", tmp_path / "deep" / "speed.svg"
    options = ["--out", str(out), "--picture", str(picture), "--peers", "eager,compile"]
    main([*options, "--seconds", "0.5"])
    assert [call["allocator"] for call in calls] == ["default", "kept"]
    assert [call["out"].name for call in calls] == ["result-default.json", "result-kept.json"]
    assert calls[0]["peers"] == ["eager", "compile"]
    assert calls[0]["budget"].seconds == 0.5
    assert calls[0]["device"] == "cpu"
    assert tuple(calls[0]["cases"]) == CASES
    assert picture.read_text().startswith("<svg")
    shown = capsys.readouterr().out
    assert "not installed: JAX" in shown
    assert CASES[0].name in shown
    assert "behind eager in" in shown


def test_a_setting_alone_is_written_where_it_was_said(calls: Calls, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    main(["--allocator", "kept", "--out", str(out), "--grid", "small"])
    assert [call["out"] for call in calls] == [out]
    main(["--out", str(tmp_path), "--allocator", "default"])
    assert calls[1]["out"] == tmp_path  # the file in it is named by the machine


def test_a_gpu_has_its_own_grid_and_no_setting_of_the_allocator(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    main([])
    assert [(call["device"], call["allocator"]) for call in calls] == [("cuda:0", "default")]
    assert tuple(calls[0]["cases"]) == GRIDS["goals"]
    assert calls[0]["budget"] == run.BUDGETS["cuda"]


def test_failures_are_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = processor_results()[0]
    failed = [{"name": "a", "contestant": "liger", "reason": "no"}]
    monkeypatch.setattr(run, "bench", lambda *_, **__: {**result, "failed": failed})
    with pytest.raises(SystemExit, match="1"):
        main(["--allocator", "default"])
    assert "1 contestants failed" in capsys.readouterr().err
    monkeypatch.setattr(run, "bench", lambda *_, **__: None)
    with pytest.raises(SystemExit, match="1"):
        main([])


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list", "--only", "^weight/"])
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--grid", "smal"], 'Did you mean "small"'),
        (["--normalizer", "bacth"], 'Did you mean "batch"'),
        (["--only", "nothing like that"], "--list prints"),
        (["--peers", "liger"], "on cuda only"),
        (["--device", "tpu"], "there is no device 'tpu'"),
        (["--goals", "absent.json"], "no result of a benchmark"),
    ],
)
def test_bad_input(words: list[str], told: str) -> None:
    with pytest.raises(AnynormError) as error:
        main(words)
    assert told in str(error.value)


def test_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "peers.json"
    write(path, gpu_result("peers", others={"liger": 0.2}))
    main(["--goals", str(path)])
    assert "| row norms: as fast as every peer | yes |" in capsys.readouterr().out
    write(path, processor_results()[0])
    with pytest.raises(AnynormError, match="results of a processor"):
        main(["--goals", str(path)])
