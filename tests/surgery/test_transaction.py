"""Changes that are measured, and undone if the outputs differ too much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anynorm.errors import AnynormError
from anynorm.surgery.receipt import Difference, Log, Receipt
from anynorm.surgery.transaction import Trial, perform

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def doubled(model: nn.Module, log: Log) -> nn.Module:
    model[0] = nn.Sequential(model[0], nn.Hardtanh(-1e-3, 1e-3))  # type: ignore[index, operator]
    log.change("0", "clipped")
    log.facts["count"] = 1
    return model


@pytest.mark.parametrize("tolerance", [-1.0, -1e-9, float("nan")])
def test_a_tolerance_that_nothing_keeps(tolerance: float) -> None:
    with pytest.raises(AnynormError, match="must be 0 or more"):
        Trial(X, tolerance=tolerance)
    assert Trial(X, tolerance=0.0).tolerance == 0


@pytest.mark.parametrize("inplace", [False, True])
def test_a_change_beyond_the_tolerance_is_taken_back(inplace: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    expected, names = model(X), list(model.state_dict())
    result = perform("clip", model, doubled, Trial(X, tolerance=1e-3), inplace=inplace)
    assert result.receipt.rolled_back
    assert result.receipt.difference is not None
    assert result.receipt.difference.relative > 0.5
    assert list(result.model.state_dict()) == names
    assert torch.equal(result.model(X), expected)
    with pytest.raises(AnynormError, match="was undone"):
        result.sure()


def test_a_change_within_the_tolerance_stays_and_leaves_the_given_model() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    result = perform("clip", model, doubled, Trial(X, tolerance=2.0))
    assert len(result.sure()[0]) == 2  # type: ignore[index, arg-type]
    assert isinstance(model[0], nn.Linear)
    assert result.receipt.facts == {"count": 1}


def test_what_is_raised_meanwhile_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 2))

    def broken(target: nn.Module, log: Log) -> nn.Module:
        doubled(target, log)
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        perform("clip", model, broken, None, inplace=True)
    assert isinstance(model[0], nn.Linear)


def test_models_that_cannot_be_copied_are_an_error_with_the_way_out() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    model.lock = (step for step in [1])  # type: ignore[assignment]
    with pytest.raises(AnynormError, match=r"cannot be copied: .*inplace=True"):
        perform("clip", model, doubled, None)


@pytest.mark.parametrize(
    ("before", "after", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, torch.nan], [1.0, torch.nan], 0.0),
        ([1.0, 2.0], [1.0, torch.nan], torch.inf),
        ([1.0, torch.inf], [0.5, torch.inf], 0.5),
        ([0.0], [1.0], torch.inf),
        ([], [], 0.0),
    ],
)
def test_differences(before: list[float], after: list[float], relative: float) -> None:
    found = Difference.between([torch.tensor(before)], [torch.tensor(after)])
    assert found.relative == relative


def test_other_shapes_are_infinitely_far_apart() -> None:
    assert Difference.between([X], [X[:2]]).absolute == torch.inf


def test_receipts_are_written_as_json_and_shown(tmp_path: Path) -> None:
    log: Any = Log()
    log.change("a", "done")
    log.refuse("b", "not possible")
    receipt = Receipt(
        "fold", tuple(log.changed), tuple(log.refused), {"n": 1}, Difference(1, 2), 0.1, True
    )
    receipt.write(tmp_path / "deep" / "receipt.json")
    found = json.loads((tmp_path / "deep" / "receipt.json").read_text())
    assert found["refused"] == [{"layer": "b", "text": "not possible"}]
    assert found["difference"] == {"absolute": 1, "relative": 2, "compared": True}
    shown = str(receipt)
    assert "b refused: not possible" in shown
    assert "rolled back" in shown


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_where_nothing_was_finite_nothing_was_compared(bad: float) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.fill_(bad)  # type: ignore[operator, union-attr]
    for tolerance, taken_back in ((1e6, True), (None, False)):
        result = perform("clip", model, nothing, Trial(X, tolerance=tolerance))
        assert result.receipt.rolled_back is taken_back
        assert "nothing was compared" in str(result.receipt)


def nothing(model: nn.Module, log: Log) -> nn.Module:
    log.change("0", "nothing")
    return model


class Restless(nn.Module):
    """Changes all that it can in its forward, and may then fail."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.linear, self.norm, self.fails = nn.Linear(3, 4), nn.BatchNorm1d(4), fails
        self.register_buffer("seen", torch.zeros(()))
        self.calls, self.config = [0], Locked(width=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        self.seen = self.seen + 1
        self.linear.requires_grad_(False)
        self.norm.train()
        y: torch.Tensor = self.norm(self.linear(x)) + torch.rand(1)
        if self.fails:
            raise ValueError("late")
        return y


class Locked(dict[str, int]):
    """A dictionary that forbids what a configuration must not do."""

    def update(self, *_: Any, **__: Any) -> None:
        raise TypeError("locked")

    def clear(self) -> None:
        raise TypeError("locked")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_what_a_forward_does_is_undone(fails: bool, inplace: bool) -> None:
    model = Restless(fails).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random, config = torch.get_rng_state(), model.config
    if fails:
        with pytest.raises(AnynormError, match="late"):
            perform("clip", model, nothing, Trial(X), inplace=inplace)
    else:
        perform("clip", model, nothing, Trial(X), inplace=inplace)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.norm.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert model.config is config
    assert model.config == {"width": 4}
