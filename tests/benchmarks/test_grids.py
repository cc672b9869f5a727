"""The registry: names, filters, and what the grids must hold."""

import itertools

import pytest
from benchmarks.speed.grids import CASES, GRIDS, grid, select

from anynorm.bench.cases import DTYPES
from anynorm.errors import UnknownNameError

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


@pytest.mark.parametrize("name", GRIDS)
def test_names_are_unique(name):
    assert len({case.name for case in grid(name)}) == len(grid(name))


@pytest.mark.parametrize("name", GRIDS)
def test_cases_that_share_layers_stand_together(name):
    runs = [
        setup
        for setup, _ in itertools.groupby(
            grid(name), lambda case: (case.setup, case.phase == "evaluation")
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
    assert 0 < len(grid("small")) < len(CASES) / 3
    both = select(CASES, "14x14", normalizer=["group", "instance"], phase=["both"], dtype=None)
    assert {(case.normalizer, case.phase) for case in both} == {
        ("group", "both"),
        ("instance", "both"),
    }


def test_a_value_that_no_case_has_is_refused():
    with pytest.raises(UnknownNameError, match='"bf16"'):
        select(CASES, dtype=["bf61"])
    with pytest.raises(UnknownNameError, match='"rows"'):
        grid("row")


def test_rows_of_every_width_fill_the_tensors_of_the_goals():
    for dtype in DTYPES:
        cases = select(grid("rows"), dtype=[dtype])
        assert {case.shape[1] for case in cases} == {512 << power for power in range(8)}
        assert {case.nbytes for case in cases} == {1 << 28, 1 << 31}


def test_the_networks_shapes_are_those_of_a_resnet_50():
    import torch
    from benchmarks.models import MODELS, Size

    with torch.device("meta"):
        network = MODELS["resnet50"].build("eager", Size(256, 224, 64))
        seen = set()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.register_forward_hook(lambda _, args, __: seen.add(tuple(args[0].shape)))
        network(torch.empty(256, 3, 224, 224))
    assert {case.shape for case in select(grid("images"), normalizer=["batch"])} <= seen


def test_small_shapes_are_small():
    assert max(case.nbytes for case in grid("launch")) <= 8 << 20
