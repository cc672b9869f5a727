"""What cannot be synchronised is said, on every rank and without waiting for ever."""

import os
import re
import time
import warnings

import pytest
import torch
from ranks import on_ranks
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import anynorm
from anynorm.ops import process_groups

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")

SECONDS = 5


def message(call):
    try:
        call()
    except anynorm.AnynormError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def model():
    torch.manual_seed(0)
    return anynorm.convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "sync").model


def joined(rank):
    wrapped = DistributedDataParallel(model())
    with wrapped.join():
        for _ in range(1 + rank):
            wrapped(torch.randn(2, 3, 4, 4)).sum().backward()


def mixed(rank):
    device = "meta" if rank else "cpu"
    group = dist.new_group([0, 1])
    anynorm.BatchNorm1d(3, sync=group, device=device)(torch.randn(2, 3, device=device))


def single(rank):
    anynorm.BatchNorm1d(3, sync=True)(torch.randn(rank, 3))


def indivisible(rank):
    anynorm.BatchNorm1d(3, sync=3)(torch.randn(2, 3))


def outsider(rank):
    first = dist.new_group([0])
    anynorm.BatchNorm1d(3, sync=first)(torch.randn(2, 3))


def left_alone(rank):
    """Last: rank 1 ends between forward and backward."""
    y = model()(torch.randn(2, 3, 4, 4))
    if rank:
        os._exit(0)
    y.square().sum().backward()


def of_rank(rank, size):
    calls = (joined, mixed, single, indivisible, outsider)
    found = {call.__name__: message(lambda call=call: call(rank)) for call in calls}
    if rank:
        torch.save(found, os.environ["ANYNORM_TEST_FOUND"])
    return found | {"left": message(lambda: left_alone(rank)), "again": message(again)}


def again():
    """Forward, of a rank that is alone by now."""
    model()(torch.randn(2, 3, 4, 4))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    of_second = folder / "1.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYNORM_TEST_FOUND", str(of_second))
        return on_ranks(2, of_rank, folder, timeout=SECONDS)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("joined", "DDP's join.*throw_on_early_termination"),
        ("mixed", "different devices: {0: 'cpu', 1: 'meta'}"),
        ("single", "more than 1 value per channel.*of all ranks"),
        ("indivisible", "sync=3 does not divide the 2 ranks. Possible sizes: 1, 2"),
    ],
)
def test_every_rank_says_the_same(what, said, found):
    for of in found:
        assert re.search(said, of[what]), of[what]


def test_a_rank_outside_its_group(found):
    assert found[0]["outsider"] == "no error"
    assert "rank 1 is not in" in found[1]["outsider"]


def test_who_is_left_alone_says_which_collective_of_which_layer_failed(found):
    assert (
        "CollectiveError: the all_reduce of 8 values for SyncBatchNorm(4) '1'" in (found[0]["left"])
    )
    assert (
        "CollectiveError: the all_gather of 9 values for SyncBatchNorm(4) '1'"
        in (found[0]["again"])
    )


def of_waiting_rank(rank, size, done):
    """Rank 1 lives, and never comes a second time."""
    again()
    found = None
    if rank == 0:
        found = message(again)
        done.touch()
    while not done.exists():
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_a_rank_that_never_comes_is_waited_for_no_longer_than_the_timeout(tmp_path):
    found = on_ranks(2, of_waiting_rank, tmp_path, tmp_path / "done", timeout=2)
    assert "the all_gather of 9 values for SyncBatchNorm(4) '1' failed between the 2" in found[0]


def test_without_processes_it_works_as_one_and_says_so_once(monkeypatch):
    monkeypatch.setattr(process_groups, "_told", set())
    x = torch.randn(4, 3)
    layer = anynorm.SyncBatchNorm(3)
    with pytest.warns(UserWarning, match=r"SyncBatchNorm\(3\) is synchronised, but .*torchrun"):
        y = layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(layer(x), y)
    torch.testing.assert_close(y, nn.BatchNorm1d(3)(x))


@pytest.mark.parametrize("sync", [0, -2, "world", 1.5])
def test_values_that_name_no_group(sync):
    with pytest.raises(anynorm.AnynormError, match=r"sync="):
        anynorm.BatchNorm1d(3, sync=sync)


@pytest.mark.parametrize("name", ["layer", "group", "ghost", "instance"])
def test_normalizers_with_nothing_to_synchronise(name):
    options = {"groups": 2} if name == "group" else {}
    with pytest.raises(anynorm.AnynormError, match=r"sync="):
        anynorm.create(name, 4, sync=True, **options)


def test_repr_and_false():
    assert repr(anynorm.create("batch", 4, sync=True)).endswith("momentum=0.1, sync=True)")
    assert repr(anynorm.BatchNorm1d(4, sync=2)).endswith("sync=2)")
    assert anynorm.BatchNorm1d(4, sync=False).sync is None
