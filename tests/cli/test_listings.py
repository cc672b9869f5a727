"""``anynorm catalogue`` and ``anynorm info``."""

from __future__ import annotations

import pytest
import torch

import anynorm
from anynorm import cli
from anynorm.catalogue import catalogue


def test_catalogue_lists_every_normalizer(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["catalogue"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in catalogue)
    assert "[n] c [...]" in shown
    assert "arXiv:1502.03167" in shown


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    assert torch.__version__ in shown
    assert all(field.replace("_", " ") in shown for field in vars(anynorm.info()))
