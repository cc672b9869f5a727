"""Models on the meta device, or sharded: an error that says what to do."""

import pytest
import torch
from torch import distributed as dist
from torch import nn

import anynorm

VERBS = {
    "convert": lambda model, x: anynorm.convert(model, "anynorm", x),
    "fold": lambda model, x: anynorm.fold(model.eval(), x),
    "center": anynorm.center,
    "doctor": lambda model, x: anynorm.doctor(model, [x]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_models_on_the_meta_device(verb):
    with torch.device("meta"):
        model, x = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), torch.empty(3, 8)
    with pytest.raises(anynorm.AnynormError, match="they are on the meta device"):
        VERBS[verb](model, x)


@pytest.fixture
def alone(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("verb", VERBS)
def test_sharded_models(verb, alone):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(anynorm.AnynormError, match="sharded over processes"):
        VERBS[verb](model, torch.randn(3, 8))
