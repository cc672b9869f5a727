"""``anynorm audit``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import anynorm
from anynorm import cli
from anynorm.surgery import save_state


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program whose batch norm can be folded, and beside it the weights that it has."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    model[1].running_var.uniform_(1, 2)  # type: ignore[operator]
    torch.export.save(torch.export.export(model, (torch.randn(2, 3),)), tmp_path / "net.pt2")
    save_state(model, tmp_path / "net.safetensors")
    return tmp_path / "net.pt2"


def test_findings_are_printed_and_written(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, values = program.with_name("audit.html"), program.with_name("audit.json")
    status = cli.main(["audit", str(program), "--html", str(page), "--json", str(values)])
    printed = capsys.readouterr().out
    assert status == 1
    assert "102 not folded" in printed
    assert "not checked: 103 not the checkpoint's, 104 folded twice: needs checkpoint=" in printed
    assert f"page: {page}\nJSON: {values}" in printed
    assert json.loads(values.read_text())["status"] == 1
    assert "not folded" in page.read_text()


def test_a_checkpoint_is_compared(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = program.with_name("net.safetensors")
    assert cli.main(["audit", str(program), "--checkpoint", str(weights)]) == 1
    assert "needs checkpoint=" not in capsys.readouterr().out


def test_a_healthy_file_has_status_0(program: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    torch.export.save(torch.export.export(model, (torch.randn(2, 3),)), program)
    assert cli.main(["audit", str(program)]) == 0


def test_a_file_that_cannot_be_read_has_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit", str(tmp_path / "no.onnx")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_page_names_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")
    for check in anynorm.audit.CHECKS:  # type: ignore[attr-defined]
        assert f"| {check.number} | {check.name} |" in page
