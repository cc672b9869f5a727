"""Characters of Python's own sources."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anynorm.errors import AnynormError
from anynorm.study.python_text import ALPHABET, LENGTH, encode, python_text


def decoded(numbers: torch.Tensor) -> str:
    return "".join((ALPHABET + "\N{REPLACEMENT CHARACTER}")[number] for number in numbers.tolist())


def test_targets_are_the_inputs_one_character_on() -> None:
    for x, y in python_text():
        assert x.shape == y.shape
        assert x.shape[1] == LENGTH
        assert torch.equal(x[:, 1:], y[:, :-1])


def test_sequences_follow_one_another() -> None:
    (x, y), _ = python_text()
    assert torch.equal(y[:50, -1], x[1:51, 0])


def test_the_text_is_python_and_the_parts_are_different() -> None:
    (train, _), (held_out, _) = python_text()
    assert "def __init__(self" in decoded(train.flatten())
    assert "SequenceMatcher" in decoded(held_out.flatten())
    assert "SequenceMatcher" not in decoded(train.flatten())


def test_there_is_enough_of_it() -> None:
    (train, _), (held_out, _) = python_text()
    assert 400_000 < train.numel() < 1_000_000
    assert held_out.numel() > 80_000


def test_any_other_character_is_one_symbol() -> None:
    assert encode("aé\tλ").tolist() == [ALPHABET.index("a"), *[len(ALPHABET)] * 3]


def test_a_library_without_sources_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anynorm.study.python_text.sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(AnynormError, match="Use a Python that has its standard library as files"):
        python_text()
