"""The compiler's own passes batch the collectives of layers that do not wait for each other."""

import re
from collections import Counter

import pytest
import torch
from ranks import on_ranks
from torch import distributed as dist
from torch import nn
from torch._inductor.utils import run_and_get_code

import anynorm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed"),
]

SIZE = 2
OPTIONS = {"bucket_all_gathers_fx": "all", "bucket_all_reduces_fx": "all"}
CALL = re.compile(r"_c10d_functional\.(all_gather_into_tensor|all_reduce)(?:_out|_)?\.default\(")


class Branches(nn.Module):
    """Two branches of different widths, which meet behind their norms."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow = (
            nn.Sequential(nn.Conv2d(3, channels, 1), anynorm.BatchNorm2d(channels, sync=True))
            for channels in (6, 4)
        )

    def forward(self, x):
        return torch.cat([self.wide(x), self.narrow(x)], 1)


def step(rank, options=None, compiled=True):
    """The collectives in the code of forward and backward, and what they computed."""
    made = torch.Generator().manual_seed(rank)
    x, dy = (torch.randn(3 + rank, c, 5, 5, generator=made) for c in (3, 10))
    model, x = Branches(), x.requires_grad_()
    call = torch.compile(model, fullgraph=True, options=options) if compiled else model

    def run():
        y = call(x)
        y.backward(dy)
        return y.detach()

    torch._dynamo.reset()
    y, codes = run_and_get_code(run)
    calls = Counter(name for code in codes for name in CALL.findall(code))
    return calls, [y, x.grad, *(p.grad for p in model.parameters()), *model.buffers()]


def of_rank(rank, size):
    # Code from the cache of an earlier run is not seen by `run_and_get_code`.
    torch._inductor.config.force_disable_caches = True
    return step(rank, compiled=False), step(rank), step(rank, OPTIONS)


def test_two_branches_share_their_collectives(tmp_path):
    for (_, eager), (single, _), (batched, found) in on_ranks(SIZE, of_rank, tmp_path):
        assert single == {"all_gather_into_tensor": 2, "all_reduce": 2}
        assert batched == {"all_gather_into_tensor": 1, "all_reduce": 1}
        for value, expected in zip(found, eager, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
