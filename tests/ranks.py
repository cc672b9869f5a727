"""Real processes: a function called on each of them, and what each returned."""

from datetime import timedelta

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

__all__ = ["on_ranks"]


def on_ranks(size, function, folder, *args, timeout=60):
    """``function(rank, size, *args)`` of `size` processes with gloo, as a list over ranks.

    `timeout`: of the collectives, in seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mp.spawn(_process, (size, function, folder, args, timeout), nprocs=size)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _process(rank, size, function, folder, args, timeout):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(folder / "store"), size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout),
    )
    torch.save(function(rank, size, *args), folder / f"{rank}.pt")
    dist.destroy_process_group()
