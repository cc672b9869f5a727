"""The benchmark of fused networks: what is kept for backward, and the page shows the result."""

import load_benchmarks  # noqa: F401
import torch
from benchmarks import ROOT, fuse_speed
from benchmarks.result_files import read
from torch import nn


def test_the_page_has_the_table_of_the_result():
    words = fuse_speed.table(read(fuse_speed.FILE))
    text = (ROOT / "docs" / "speed.md").read_text()
    assert f"<!-- fuse speed -->\n{words}\n<!-- end of fuse speed -->" in text


def test_each_storage_counts_once_and_parameters_do_not():
    x = torch.randn(10, 10)
    model = nn.Sequential(nn.Linear(10, 10), nn.SiLU(), nn.Linear(10, 10), nn.ReLU(inplace=True))
    # The input, what goes into SiLU and what comes out, and the result.
    assert fuse_speed.kept(model, x) == 4 * 10 * 10 * 4
