"""The benchmark of recalibration: what it measures, and the table of the page."""

import load_benchmarks  # noqa: F401
import pytest
import torch
from benchmarks import ROOT, recalibrate_time
from benchmarks.result_files import read
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))

    def forward(self, pixel_values):
        return self.layers(pixel_values)


def test_passes_and_the_difference_of_a_small_network(monkeypatch):
    monkeypatch.setitem(recalibrate_time.MODELS, "tiny", Tiny)
    options = recalibrate_time.parse(["--batches", "3", "--batch", "2", "--size", "8"])
    options.rounds = 2
    row = recalibrate_time.measure("tiny", options)
    assert row["passes"] == {"lockstep": 1, "settled passes": 3}
    assert row["difference"] < 1e-6
    assert len(row["lockstep"]) == 2
    found = recalibrate_time.peak("tiny", "lockstep", options)
    assert 0 < found["before"] <= found["peak"]


@pytest.mark.parametrize(("name", "layers"), [("ResNet-50", 53), ("EfficientNet-B0", 49)])
def test_the_networks(name, layers):
    pytest.importorskip("transformers")
    with torch.device("meta"):
        model = recalibrate_time.MODELS[name]()
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == layers


def test_the_page_has_the_table_of_the_result():
    words = recalibrate_time.table(read(recalibrate_time.FILE)["rows"])
    text = (ROOT / "docs" / "surgery.md").read_text()
    assert f"<!-- recalibration time -->\n{words}\n<!-- end of recalibration time -->" in text
