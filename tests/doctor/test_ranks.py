"""Processes that do not agree on the statistics, and moments pooled over processes."""

import pytest
import torch
from patients import batches, convolutional, settled
from torch import distributed as dist
from torch import multiprocessing as mp

from anynorm.doctor import doctor


def moved(model, by):
    with torch.no_grad():
        model.bn2.running_mean += by * model.bn2.running_var.sqrt()
    return model


def ranks_differ(rank):
    return [
        (f.check, f.severity, f.layer, f.numbers["ranks"])
        for f in doctor(moved(settled(convolutional()), rank), checks=[14]).findings
    ]


def ranks_agree():
    return doctor(settled(convolutional()), checks=[14]).findings


def of_both_halves(rank):
    """The statistics are right for all data, of which each process has a half unlike the other."""
    halves = [[(x + shift, y) for x, y in batches()] for shift in (-2, 2)]
    model = convolutional()
    for layer in (model.bn1, model.bn2):
        layer.momentum = None
    settled(model, [batch for pair in zip(*halves, strict=True) for batch in pair], steps=1)
    return model, halves[rank]


def _rank(rank, store, found):
    torch.set_num_threads(1)
    group = dist.FileStore(store, 2)
    dist.init_process_group("gloo", store=group, rank=rank, world_size=2)
    model, half = of_both_halves(rank)
    pooled = [f.layer for f in doctor(model, half, checks=[1]).findings if f.severity == "error"]
    found[rank] = (list(ranks_agree()), ranks_differ(rank), pooled)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")
def test_ranks_that_disagree_are_found_by_both_and_moments_are_of_both(tmp_path):
    with mp.Manager() as manager:
        found = manager.dict()
        mp.spawn(_rank, (str(tmp_path / "store"), found), nprocs=2)
        found = dict(found)
    assert found == {rank: ([], [(14, "error", "bn2", 2)], []) for rank in (0, 1)}


def test_one_half_alone_does_not_fit_the_statistics_of_both():
    model, half = of_both_halves(0)
    layers = [f.layer for f in doctor(model, half, checks=[1]).findings if f.severity == "error"]
    assert layers[0] == "bn1"


def test_without_processes_the_check_says_what_it_needs():
    [skipped] = doctor(convolutional(), checks=[14]).skipped
    assert "process group" in skipped.needs
