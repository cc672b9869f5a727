"""The classifiers of the zoo trained on digits, kept in a folder from one run to the next."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from anynorm.study.data import load
from benchmarks import zoo_digits
from benchmarks.zoo import build, find, train
from benchmarks.zoo_digits import _images

__all__ = ["held_out", "trained"]


def trained(name: str, cache: Path, seed: int = 0) -> tuple[nn.Module, float]:
    """The model in eval mode and its accuracy on the held-out images.

    It is trained at the first call; its weights then lie in `cache`, under a name that changes
    with its initial weights and with how it is trained.
    """
    model = build(name, seed)
    kept = cache / f"{name}-{seed}-{_fingerprint(model, find(name).epochs)}.safetensors"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        accuracy = train(model, epochs=find(name).epochs, seed=seed)
        beside = kept.with_suffix(".tmp")
        save_model(model, str(beside), {"accuracy": repr(accuracy)})
        beside.replace(kept)
    load_model(model, str(kept))
    with safe_open(str(kept), "pt") as file:
        return model.eval(), float(file.metadata()["accuracy"])


def held_out(size: int = 64) -> list[tuple[Tensor, Tensor]]:
    """The images (N, 3, 32, 32) that no model is trained on, with their labels (N,)."""
    return list(zip(_images()[1].split(size), load("digits").test_y.split(size), strict=True))


def _fingerprint(model: nn.Module, epochs: int) -> str:
    digest = hashlib.sha256(str(epochs).encode() + Path(zoo_digits.__file__).read_bytes())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
