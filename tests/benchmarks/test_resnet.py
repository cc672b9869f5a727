"""The network trains alike with either's layers, and is measured."""

import pytest
from benchmarks.kept import peak_megabytes
from benchmarks.resnet import LAYOUTS, compare, parse, training

SMALL = ["--batch", "4", "--size", "16", "--width", "4", "--rounds", "2"]


@pytest.fixture
def options():
    found = parse(SMALL)
    found.one = "default"
    return found


def test_both_networks_learn_the_same(options):
    result = compare(options)
    assert [row["layout"] for row in result["network"]] == list(LAYOUTS)
    for row in result["network"]:
        assert len(row["losses"]["ours"]) == options.rounds + 1
        # Each step multiplies the rounding of float32 (6e-8) by the network's sensitivity.
        assert row["loss_difference"] < 1e-3


def test_steps_see_new_data(options):
    step = training(options, "eager", "contiguous")
    assert step() != step()


def test_memory_is_measured_in_megabytes():
    assert 10 < peak_megabytes() < 1e6
