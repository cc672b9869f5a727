"""The memory that waiting batches may keep, and models whose batches cannot wait."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from recomputed import furthest
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery import recalibrate
from anynorm.surgery.recalibrating.footprint import footprint
from anynorm.surgery.recalibrating.room import Room, allowed


def narrowing() -> nn.Sequential:
    """Layers whose inputs have 4096, 1024, 256 and 64 values for each image."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels in (1, 4, 4, 4):
        layers += [nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers)


def images(*sizes: int) -> list[Tensor]:
    made = torch.Generator().manual_seed(1)
    return [torch.randn(size, 1, 64, 64, generator=made) + size / 10 for size in sizes]


def norms(model: nn.Sequential) -> list[nn.Module]:
    return [layer for layer in model if isinstance(layer, nn.BatchNorm2d)]


def test_the_footprint_is_what_is_alive() -> None:
    model = narrowing()
    state = copy.deepcopy(model.state_dict())
    found = footprint(model, images(3)[0], None, norms(model))
    assert found.size == 4 * 4096
    # What reaches the layer; `Sequential` has dropped everything before it.
    assert found.kept == {i: 4 * size for i, size in enumerate((4096, 1024, 256, 64))}
    assert not found.why
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settled", "waiting"), [(0, "3 batches"), (1, "5 batches"), (4, "6 batches")]
)
def test_layers_are_settled_until_the_rest_fits(settled: int, waiting: str) -> None:
    model, batches = narrowing(), images(4, 4, 4, 4, 4, 4)
    found = footprint(model, batches[0], None, norms(model))
    each = 4 * (found.size + found.kept[min(settled, 3)])
    # All six fit from this layer on, or in front of every layer.
    memory = 6 * each if settled else 3 * each
    result = recalibrate(model, batches, memory=memory)
    assert furthest(result.model, recalibrate(model, batches).model) < 1e-6
    facts = result.receipt.facts
    assert facts["last_change"] == 0
    assert facts["passes"] > 1


def test_the_bound_holds_and_the_receipt_says_what_was_done() -> None:
    model, batches = narrowing(), images(4, 4, 4, 4, 4, 4)
    found = footprint(model, batches[0], None, norms(model))
    whole = recalibrate(model, batches)
    assert whole.receipt.facts["passes"] == 1
    assert whole.receipt.facts["memory"].startswith(
        "6 batches wait together and keep up to 768 KiB"
    )
    # In front of the first layer four fit; six, with their images, in front of the second.
    part = recalibrate(model, batches, memory=24 * (found.size + found.kept[1]))
    assert part.receipt.facts["passes"] == 2
    assert "3 batches wait together" in part.receipt.facts["memory"]
    assert "not all 6 do" in part.receipt.facts["memory"]
    none = recalibrate(model, batches, memory=0)
    assert none.receipt.facts["passes"] == 5
    for result in (part, none):
        assert furthest(result.model, whole.model) < 1e-6


def test_an_iterator_that_does_not_fit_gives_estimates() -> None:
    model, batches = narrowing(), images(4, 4, 4, 4, 4, 4)
    facts = recalibrate(model, iter(batches), memory=300_000).receipt.facts
    assert facts["passes"] == 1
    assert "the statistics are estimates" in facts["note"]


class Remembers(nn.Module):
    """Keeps what it computes at its beginning for its end, in an attribute or a buffer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.last, self.kind = nn.BatchNorm1d(4), nn.BatchNorm1d(4), kind
        self.kept: Any = None
        self.cache: dict[str, Any] = {}
        self.register_buffer("memory", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(0, keepdim=True)
        if self.kind == "attribute":
            self.kept = mean
        elif self.kind == "entry":
            self.cache["kept"] = mean
        else:
            self.memory.copy_(mean)
        x = self.first(x)
        kept = {"attribute": self.kept, "entry": self.cache.get("kept"), "buffer": self.memory}
        y: Tensor = self.last(x * kept[self.kind])
        return y


@pytest.mark.parametrize(
    ("kind", "name"), [("attribute", "kept"), ("entry", "cache"), ("buffer", "memory")]
)
def test_a_model_that_keeps_state_runs_one_batch_at_a_time(kind: str, name: str) -> None:
    torch.manual_seed(0)
    batches = [torch.randn(n, 4) + n for n in (20, 30, 7)]
    found = recalibrate(Remembers(kind), batches)
    said = f"one batch at a time, since the forward pass of the model changes {name!r}"
    assert found.receipt.facts["memory"] == said
    assert furthest(found.model, recalibrate(Remembers(kind), batches, memory=0).model) < 1e-6


class Caches(nn.Module):
    """Makes something in its first forward pass, and anew for another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.places: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.places is None or self.places.shape[-1] != x.shape[-1]:
            self.places = torch.arange(x.shape[-1]) / x.shape[-1]
        y: Tensor = self.last(self.first(x) * self.places)
        return y


def test_what_the_first_forward_pass_prepares_is_no_state() -> None:
    torch.manual_seed(0)
    equal = [torch.randn(n, 4, 6) + n for n in (20, 30, 7)]
    assert recalibrate(Caches(), equal).receipt.facts["passes"] == 1
    # Batches of another shape would take each other's.
    others = [torch.randn(5, 4, length) + length for length in (6, 9, 6, 9)]
    found = recalibrate(Caches(), others)
    assert furthest(found.model, recalibrate(Caches(), others, memory=0).model) < 1e-6
    assert found.receipt.facts["passes"] > 1
    said = "those of other shapes do not wait, since the forward pass of the model changes 'places'"
    assert said in found.receipt.facts["memory"]


def test_a_model_that_takes_no_single_sample_gets_the_whole_batch() -> None:
    class Several(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) < 2:
                raise ValueError("one")
            return super().forward(x)

    found = footprint(Several(3), torch.zeros(5, 3), None, [])
    assert (found.size, found.measured, found.why) == (60, True, "")
    never = footprint(Several(3), torch.zeros(1, 3), None, [])
    assert never.why == "what they keep cannot be measured (AnynormError)"


def test_what_waiting_batches_keep_is_said_before_they_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, batches = narrowing(), images(4, 4)
    recalibrate(model, batches, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("anynorm: each batch that waits keeps up to 128 KiB, of ")
    assert lines[0].endswith("; all 2 wait together, with up to 256 KiB.")
    assert lines[-1] == "anynorm: recalibrate, pass 1: 100%"
    recalibrate(model, batches, memory=200_000, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("; 2 need 256 KiB, so further passes follow.")
    assert "anynorm: recalibrate, pass 2 ..." in lines
    recalibrate(model, iter(batches), progress=True)
    assert "wait together" not in capsys.readouterr().err
    recalibrate(model, batches)
    assert capsys.readouterr().err == ""


def test_a_bound_below_0_is_an_error() -> None:
    for memory in (-1, math.nan):
        with pytest.raises(AnynormError, match="give the bytes that waiting batches may keep"):
            recalibrate(narrowing(), images(2), memory=memory)


def test_larger_batches_need_more() -> None:
    room = Room(bound=100, each=30, size=12)
    assert room.needed(torch.zeros(6)) == 60
    assert not room.full(100)
    assert room.full(101)
    assert room.full(math.inf)
    assert 0 < allowed(torch.device("cpu"), None) < math.inf
