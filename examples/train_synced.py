"""Data-parallel training with synchronised batch norm, on CPUs or GPUs.

    torchrun --standalone --nproc-per-node 2 examples/train_synced.py

Each process has a part of every batch, and the parts are of different sizes; the statistics are
those of the whole batch.
"""

import argparse
import os

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import anynorm


def network():
    """A small network as one finds it, with torch's batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


def batch(samples, rank, step):
    """Images of stripes, upright or lying; each process draws its own."""
    made = torch.Generator().manual_seed(1000 * step + rank)
    labels = torch.randint(2, (samples,), generator=made)
    stripes = torch.arange(12).remainder(4).lt(2).float()
    upright = stripes.expand(12, 12)
    images = torch.where(labels.bool()[:, None, None], upright, upright.T)[:, None]
    return images + 0.5 * torch.randn(images.shape, generator=made), labels


def main():
    """Train, and show that all processes hold the same statistics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    steps = parser.parse_args().steps

    gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if gpu else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    torch.manual_seed(0)
    model = anynorm.convert(network(), "sync").model.to(device)
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for step in range(steps):
        x, labels = (t.to(device) for t in batch(8 + 4 * rank, rank, step))
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    x, labels = (t.to(device) for t in batch(200, rank, steps))
    right = (model(x).argmax(1) == labels).float().mean()
    mean = model.module[1].running_mean.norm()
    line = f"rank {rank}: loss {loss:.3f}, accuracy {right:.3f}, |running mean| {mean:.6f}"
    lines = [""] * dist.get_world_size()
    dist.all_gather_object(lines, line)
    if rank == 0:
        print("\n".join(lines))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
