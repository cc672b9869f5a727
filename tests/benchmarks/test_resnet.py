"""The models train alike with either's layers, and are measured."""

import pytest
from benchmarks import hardware
from benchmarks.models import LAYOUTS, MODELS
from benchmarks.process import peak_megabytes
from benchmarks.resnet import compare, contestants, lines, parse, size, training

# Not narrower than 8: with 4 channels, torch's convolutions in channels_last write beyond their
# memory on processors with AVX2 alone (torch 2.13.0 and torch.nn's layers alone).
SMALL = ["--batch", "4", "--size", "16", "--width", "8", "--rounds", "2"]
TINY = {
    "resnet": SMALL,
    "resnet50": ["--batch", "2", "--size", "64", "--width", "8", "--rounds", "2"],
    "transformer": ["--batch", "2", "--size", "8", "--width", "64", "--rounds", "2"],
}


def given(model, *more):
    found = parse(["--model", model, *TINY[model], *more])
    found.one = "default"
    return found


@pytest.fixture(params=MODELS)
def options(request):
    return given(request.param)


def test_both_networks_learn_the_same(options):
    result = compare(options)
    assert [row["layout"] for row in result["network"]] == list(MODELS[options.model].layouts)
    for row in result["network"]:
        assert set(row["ms"]) == set(row["losses"]) == {"ours", "eager"}
        assert len(row["losses"]["ours"]) == options.rounds + 1
        # Each step multiplies the rounding of float32 (6e-8) by the network's sensitivity.
        assert row["loss_difference"] < 1e-3


def test_steps_see_new_data(options):
    step = training(options, "eager", "contiguous")
    assert step() != step()


def test_numbers_that_are_not_given_are_the_models_own():
    assert size(given("transformer")) == MODELS["transformer"].size.__class__(2, 8, 64)
    assert size(parse(["--model", "resnet50"])) == MODELS["resnet50"].size
    assert tuple(LAYOUTS) == MODELS["resnet"].layouts


def test_under_autocast_the_losses_stay_near(monkeypatch):
    (row,) = compare(given("transformer", "--dtype", "bf16"))["network"]
    assert row["loss_difference"] < 2**-6  # twice what separates numbers in bfloat16


def test_a_gpus_memory_is_measured_in_the_same_process(monkeypatch):
    monkeypatch.setattr(hardware, "peak", lambda step, device: 3 << 20)
    (row,) = compare(given("transformer"))["network"]
    assert row["memory"] == {"ours": {"peak": 3.0}, "eager": {"peak": 3.0}}
    shown = lines("default", row)
    assert len(shown) == 3
    assert "peak 3 MB" in shown[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # where torch imports its own
def test_both_sides_are_compiled():
    options = given("transformer", "--compile")
    assert contestants(options) == ["ours", "eager", "ours-compiled", "eager-compiled"]
    (row,) = compare(options)["network"]
    assert row["ratio_compiled"]["median"] > 0
    first = [losses[0] for losses in row["losses"].values()]
    assert first == pytest.approx([first[0]] * 4, rel=1e-3)


def test_memory_is_measured_in_megabytes():
    assert 10 < peak_megabytes() < 1e6
