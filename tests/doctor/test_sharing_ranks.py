"""Statistics that ranks share rest on the values of all of them."""

import pytest
from patients import batches, dense
from ranks import on_ranks
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

import anynorm
from anynorm.doctor import doctor

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")

SIZE = 2
# Of one rank; the checks want 16 values of a channel.
ENOUGH_TOGETHER, TOO_FEW_TOGETHER = 8, 4
CHECKS = (5, 15)
BATCHES = (12, 7)  # of each rank
ALONE = ["none", "torch's", "groups of one", "own group", "torch's, own group"]
SHARED = ["all", "groups of two", "group", "mesh", "torch's Sync", "SyncBatchNorm"]


def values(norm, samples, check):
    """The number of values that the check finds too small at the layer, or nothing."""
    model = dense()
    model.bn = norm
    found = doctor(model.eval(), batches(size=samples), checks=[check], accumulation=4)
    assert not found.skipped
    return [(finding.layer, finding.numbers["values"]) for finding in found.findings]


def layers():
    """Batch norms of both kinds, by how they are synchronised."""
    own, mesh = dist.new_subgroups(1)[0], init_device_mesh("cpu", (SIZE,), mesh_dim_names=("data",))
    syncs = {"none": None, "groups of one": 1, "own group": own}
    syncs |= {"all": True, "groups of two": SIZE, "group": dist.group.WORLD, "mesh": mesh["data"]}
    made = {name: anynorm.BatchNorm1d(16, sync=sync) for name, sync in syncs.items()}
    made |= {"torch's": nn.BatchNorm1d(16), "SyncBatchNorm": anynorm.SyncBatchNorm(16)}
    made |= {"torch's, own group": nn.SyncBatchNorm(16, process_group=own)}
    return made | {"torch's Sync": nn.SyncBatchNorm(16)}


def last(norm):
    """What check 6 says of a last batch of one sample."""
    model = dense()
    model.bn = norm
    [found] = doctor(model.eval(), batches() + batches(1, size=1), checks=[6]).findings
    return found.severity, found.numbers["values per channel"], found.message


def worse(norm, count):
    """What check 3 finds at a layer whose running mean is off, and what could not be run."""
    model = dense()
    model.bn = norm
    norm.running_mean += 5
    found = doctor(model.eval(), batches(count), checks=[3, 12])
    return found.skipped, [(finding.check, finding.numbers) for finding in found.findings]


def of_rank(rank, size):
    compared = {
        made: worse(made(16), BATCHES[rank]) for made in (anynorm.SyncBatchNorm, nn.SyncBatchNorm)
    }
    compared |= {(name, "last"): last(norm) for name, norm in layers().items()}
    return compared | {
        (name, samples, check): values(norm, samples, check)
        for name, norm in layers().items()
        for samples in (ENOUGH_TOGETHER, TOO_FEW_TOGETHER)
        for check in CHECKS
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return on_ranks(SIZE, of_rank, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ALONE)
def test_a_rank_that_shares_with_nobody_has_its_own_values(name, check, found):
    for samples in (ENOUGH_TOGETHER, TOO_FEW_TOGETHER):
        assert [of[name, samples, check] for of in found] == [[("bn", samples)]] * SIZE


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", SHARED)
def test_ranks_that_share_have_the_values_of_all(name, check, found):
    assert [of[name, ENOUGH_TOGETHER, check] for of in found] == [[]] * SIZE
    few = [("bn", SIZE * TOO_FEW_TOGETHER)]
    assert [of[name, TOO_FEW_TOGETHER, check] for of in found] == [few] * SIZE


@pytest.mark.parametrize("check", CHECKS)
def test_without_processes_a_synchronised_layer_has_its_own_values(check):
    few = [("bn", ENOUGH_TOGETHER)]
    assert values(anynorm.SyncBatchNorm(16), ENOUGH_TOGETHER, check) == few


@pytest.mark.parametrize("name", ALONE + SHARED)
def test_a_last_batch_of_one_sample_has_one_of_each_rank_that_shares(name, found):
    for severity, values, message in (of[name, "last"] for of in found):
        if name in ALONE:
            assert (severity, values) == ("error", 1)
            assert message.endswith(
                "one sample, so each channel has 1 value: training raises an error"
            )
        else:
            assert (severity, values) == ("warning", SIZE)
            assert "one sample on each of 2 ranks, so each channel has 2 values" in message


@pytest.mark.parametrize("made", [anynorm.SyncBatchNorm, nn.SyncBatchNorm])
def test_losses_are_those_of_the_ranks_own_batches_however_many(made, found):
    for rank, count in enumerate(BATCHES):
        _, expected = worse(nn.BatchNorm1d(16), count)
        assert expected
        skipped, of_rank = found[rank][made]
        # The ranks are other processes, where memory is aligned otherwise and sums round otherwise.
        assert [check for check, _ in of_rank] == [check for check, _ in expected]
        for (_, numbers), (_, right) in zip(of_rank, expected, strict=True):
            assert numbers == pytest.approx(right, rel=1e-5)
        # torch's does not train on CPUs.
        assert [one.check for one in skipped] == ([12] if made is nn.SyncBatchNorm else [])
