"""The noise of new statistics, and what the receipt says of too few samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from anynorm.surgery import recalibrate
from anynorm.surgery.recalibrating.noise import TARGET, Noise, Samples, noise_of, verdict
from anynorm.surgery.sample_units import Units, samples


def images(count: int, generator: torch.Generator, alike: float) -> Tensor:
    """Images whose values have a part in common, of this standard deviation."""
    common = torch.randn(count, 6, 1, 1, generator=generator) * alike
    return common + torch.randn(count, 6, 5, 5, generator=generator)


@pytest.mark.parametrize("alike", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("split", [64, 8])
def test_the_noise_is_what_statistics_differ_by_between_draws(alike: float, split: int) -> None:
    made = torch.Generator().manual_seed(0)
    layer, found, means, variances = nn.BatchNorm2d(6), [], [], []
    true = alike**2 + 1
    for _ in range(40):
        x = images(64, made, alike)
        given, parts = Samples(), x.flatten(2)
        for start in range(0, 64, split):
            part = parts[start : start + split].double()
            counts = torch.full((len(part), 1), 25.0, dtype=torch.float64)
            squares = part.var(2, correction=0) * 25
            given.add(start, (counts, part.mean(2), squares))
        flat = x.double().movedim(1, -1).flatten(0, -2)
        new = flat.mean(0), flat.var(0)
        means.append(new[0])
        variances.append(new[1])
        zero = torch.zeros(6), torch.ones(6)
        found.append(noise_of("", given.units(), zero, new, layer.eps).noise)
    of_mean = torch.stack(means).square().mean() / true
    of_variance = (torch.stack(variances) / true).log().square().mean() / 4
    drawn = math.sqrt(float(of_mean + of_variance))
    # 240 values show a standard deviation to 5%; that of 64 samples varies as much again.
    assert sum(found) / len(found) == pytest.approx(drawn, rel=0.2)


def test_samples_in_any_order_are_the_same_units() -> None:
    x = torch.randn(300, 2, dtype=torch.float64)
    whole, parts = Units(limit=32), Samples()
    whole.add(0, *samples(x))
    for start in (100, 0, 250, 200, 50, 150):
        parts.add(start, samples(x[start : start + 50]))
    found = parts.units()
    assert (found.size, found.samples) == (whole.size, 300)
    torch.testing.assert_close(found.means, whole.means)
    torch.testing.assert_close(found.squares, whole.squares)


def trained(count: int) -> tuple[nn.Sequential, list[Tensor]]:
    """A network with the statistics of 4096 images, and others of the same kind."""
    torch.manual_seed(0)
    made = torch.Generator().manual_seed(1)
    layers = [nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3)]
    model = nn.Sequential(*layers, nn.BatchNorm2d(6))
    model = recalibrate(model, list(images(4096, made, 1.0).split(512))).model
    return model, list(images(count, made, 1.0).split(4))


def test_a_few_images_are_no_population() -> None:
    model, few = trained(8)
    facts = recalibrate(model, few).receipt.facts
    assert "8 samples are too few" in facts["warning"]
    assert "the old ones are expected to be better" in facts["warning"]
    needed = int(facts["samples"].partition("about ")[2].split()[0])
    assert 100 < needed < 5000
    # So many are enough.
    facts = recalibrate(*trained(needed)).receipt.facts
    noise = float(facts["samples"].partition("up to ")[2].split()[0])
    assert noise == pytest.approx(TARGET, rel=0.5)


def test_a_few_images_are_better_than_stale_statistics() -> None:
    model, few = trained(8)
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.running_mean, 5.0)  # type: ignore[arg-type]
    facts = recalibrate(model, few).receipt.facts
    assert "warning" not in facts
    assert "samples bring it to" in facts["samples"]


def test_one_sample_says_nothing() -> None:
    facts = recalibrate(nn.BatchNorm1d(3), [torch.randn(1, 3, 9)]).receipt.facts
    assert facts["samples"] == "1: one sample does not show how much samples differ"


def test_rows_of_one_sample_are_no_samples() -> None:
    """Positions that a model puts on the first axis still belong to their samples."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x.flatten(0, 1))
            return y

    x = torch.randn(40, 1, 3).expand(40, 50, 3) + 0.1 * torch.randn(40, 50, 3)
    facts = recalibrate(Flat(), [x[:30], x[30:]]).receipt.facts
    assert facts["samples"].startswith("40; ")
    assert float(facts["samples"].partition("up to ")[2].split()[0]) > 0.1


def test_the_verdict() -> None:
    quiet = Noise("a", 100, 0.02, 0.5)
    assert verdict([quiet]) == ("100; the noise of the statistics is up to 0.02 σ ('a')", "")
    loud = Noise("b", 100, 0.2, 0.21)
    text, warning = verdict([Noise("a", 100, 0.2, 0.2), loud])
    assert "about 1600 samples" in text
    assert "100 samples are too few" in warning
    assert verdict([Noise("a", 100, 0.2, 2.0), loud])[1] == ""
    assert verdict([]) == ("", "")
