"""Several processes compute what one does on the concatenated batch."""

import pytest
import torch
from cases import CASES, PARTS, Case
from ranks import on_ranks
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")

# Relative to the largest value.  A principal axis turns with the rounding of its covariance by more
# than that, the faster the closer the eigenvalues are.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
AXES = 5e-6


def of_rank(rank, size):
    parts = PARTS[size]
    return [
        case.run(case.layer(sync=True), *(t.split(parts)[rank] for t in case.tensors(sum(parts))))
        for case in CASES
    ]


def of_one(case, size):
    """Far from zero torch itself is not accurate: then in float64, of the values in float32."""
    tensors = case.tensors(sum(PARTS[size]))
    if case.far:
        return case.run(case.layer().double(), *(t.double() for t in tensors))
    return case.run(case.layer(), *tensors)


def together(name, parts):
    if name in ("y", "dx", "dresidual"):
        return torch.cat(parts)
    if name.startswith("d"):  # DDP averages them
        return torch.stack(parts).sum(0)
    assert all(torch.equal(part, parts[0]) for part in parts)
    return parts[0]


def check(case, found, expected):
    names = {name for name, value in expected.items() if value.numel()}
    assert {"y", "dx", "running_mean"} <= names
    loose = AXES if case.name == "pca" and case.dtype == torch.float32 else TOLERANCE[case.dtype]
    for name in names:
        got, want = together(name, [of[name] for of in found]).double(), expected[name].double()
        off = (got - want).abs().max() / want.abs().max()
        assert off <= loose, f"{case}: {name} is off by {off:.1e}"


@pytest.mark.parametrize(
    "size", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_ranks_equal_one_process(size, tmp_path):
    found = on_ranks(size, of_rank, tmp_path)
    for index, case in enumerate(CASES):
        check(case, [of[index] for of in found], of_one(case, size))


def of_half(rank, size):
    """Groups of two by their number, and the same by a dimension of a mesh."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
    case = Case("BatchNorm2d")
    mine = [t.split(PARTS[size])[rank] for t in case.tensors(sum(PARTS[size]))]
    return [case.run(case.layer(sync=sync), *mine) for sync in (2, mesh["inner"])]


@pytest.mark.slow
def test_a_group_takes_the_statistics_of_its_own_ranks(tmp_path):
    parts, case = PARTS[4], Case("BatchNorm2d")
    found = on_ranks(4, of_half, tmp_path)
    halves = [t.split([sum(parts[:2]), sum(parts[2:])]) for t in case.tensors(sum(parts))]
    for half, ranks in enumerate((found[:2], found[2:])):
        expected = case.run(case.layer(), *(part[half] for part in halves))
        for way in (0, 1):
            check(case, [rank[way] for rank in ranks], expected)
