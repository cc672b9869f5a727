"""The registry: names, filters, and what the issue asks to be there."""

import itertools

from benchmarks.__main__ import chosen, parse
from benchmarks.cases import CASES, quick, select

NORMALIZERS = {
    "batch",
    "batch1d",
    "layer",
    "rms",
    "group",
    "instance",
    "l1-batch",
    "linf-batch",
    "weight",
}


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_cases_that_share_layers_stand_together():
    runs = [
        setup
        for setup, _ in itertools.groupby(
            CASES, lambda case: (case.setup, case.phase == "evaluation")
        )
    ]
    assert len(runs) == len(set(runs))


def test_the_grid_is_there():
    assert {case.normalizer for case in CASES} >= NORMALIZERS
    for name in (
        "batch/channels_last/64x64x56x56/fp32/add+relu/both",
        "rms/contiguous/4096x4096/bf16/plain/forward",
    ):
        assert [case.name for case in select(CASES, f"^{name.replace('+', '[+]')}$")] == [name]


def test_filters():
    found = select(CASES, "batch.*channels_last")
    assert found
    assert all("batch" in case.normalizer and case.layout == "channels_last" for case in found)
    assert 0 < len(quick(CASES)) < len(CASES) / 3
    assert chosen(parse(["--quick", "--only", "layer"])) == select(quick(CASES), "layer")
