"""Which channels belong together, by Torch-Pruning (Fang et al. 2023, arXiv:2301.12900)."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from networks import NETWORKS, network
from torch import Tensor, nn

from anynorm.surgery.channels import Channels, analyse
from anynorm.surgery.graph import capture

oracle = pytest.importorskip("torch_pruning")

# Of groups it looks at one at a time; what must go together there is decided when it prunes.
NETWORKS_WITHOUT_GROUPS = sorted(set(NETWORKS) - {"shuffled", "transposed"})
Places = dict[tuple[str, str], list[int]]


def theirs(model: nn.Module, x: Tensor, norm: nn.Module, index: int) -> Places:
    """What goes with one channel of a norm: the indices by layer and side."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that are in no layer
        graph = oracle.DependencyGraph().build_dependency(model, example_inputs=x)
    group = graph.get_pruning_group(norm, oracle.prune_batchnorm_out_channels, idxs=[index])
    names = {module: name for name, module in model.named_modules()}
    found: dict[tuple[str, str], set[int]] = {}
    for step, indices in group:
        side = step.handler.__name__.removeprefix("prune_").removesuffix("_channels")
        if step.target.module in names:
            found.setdefault((names[step.target.module], side), set()).update(indices)
    return {place: sorted(indices) for place, indices in found.items()}


def ours(channels: Channels, model: nn.Module, name: str, index: int) -> Places:
    root = int(channels.sites[f"{name}.weight", 0][index])
    found: Places = {}
    for (tensor, axis), labels in channels.sites.items():
        layer, _, key = tensor.rpartition(".")
        indices = [place for place, label in enumerate(labels.tolist()) if label == root]
        if indices and key == "weight":
            found[layer, "in" if axis else "out"] = indices
    return found


@pytest.mark.parametrize("name", NETWORKS_WITHOUT_GROUPS)
def test_the_same_channels_belong_together(name: str) -> None:
    model, x = network(name)
    channels = analyse(capture(model, x))
    norms: list[tuple[str, Any]] = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]
    for layer, norm in norms:
        for index in (0, norm.num_features - 1):
            assert ours(channels, model, layer, index) == theirs(model, x, norm, index)
    assert norms
