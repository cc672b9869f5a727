"""Causes planted in trained models: what is changed, and the cause that the doctor should name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.surgery.normalizers import Normalizer, normalizers
from benchmarks.zoo_parts import logits

__all__ = ["PLANTED", "Plant", "Trained"]

Batch = dict[str, Tensor]
DEVIATION = 0.35  # of the images, which the models are trained on divided by it
MEAN = 0.4


@dataclass
class Trained:
    """A healthy model, its batches, and what its training left behind."""

    model: nn.Module
    batches: list[Batch]
    early: dict[str, Tensor]  # running statistics of an early step
    average: dict[str, Tensor]  # the mean of the weights over the last steps

    def copied(self) -> nn.Module:
        """A copy to plant a cause in."""
        return copy.deepcopy(self.model)


@dataclass
class Case:
    """What the doctor is given."""

    model: nn.Module
    batches: list[Batch]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plant:
    """A planted cause: its name here, the names that are right, and how it is planted."""

    name: str
    right: tuple[str, ...]
    make: Callable[[Trained], Case]


def tracking(model: nn.Module) -> list[Normalizer]:
    """The batch norms of a model."""
    return [norm for norm in normalizers(model) if norm.tracks and norm.family == "batch"]


def _fed(change: Callable[[Tensor], Tensor]) -> Callable[[Trained], Case]:
    def make(trained: Trained) -> Case:
        changed = [{**b, "pixel_values": change(b["pixel_values"])} for b in trained.batches]
        return Case(trained.copied(), changed)

    return make


def _edited(edit: Callable[[nn.Module, Trained], Any]) -> Callable[[Trained], Case]:
    def make(trained: Trained) -> Case:
        model = trained.copied()
        with torch.no_grad():
            edit(model, trained)
        return Case(model, trained.batches)

    return make


def _averaged(model: nn.Module, trained: Trained) -> None:
    model.load_state_dict(trained.average, strict=False)


def _averaged_early(model: nn.Module, trained: Trained) -> None:
    model.load_state_dict({**trained.early, **trained.average}, strict=False)


def _named_average(trained: Trained) -> Case:
    """As torch.optim.swa_utils.AveragedModel leaves it with use_buffers=False."""
    model = torch.optim.swa_utils.AveragedModel(trained.copied())
    _averaged_early(model.module, trained)
    model.n_averaged.fill_(20)
    return Case(model.eval(), trained.batches)


def _early(model: nn.Module, trained: Trained) -> None:
    model.load_state_dict(trained.early, strict=False)


def _momentum_zero(model: nn.Module, _: Trained) -> None:
    for norm in tracking(model):
        norm.module.running_mean.zero_()
        norm.module.running_var.fill_(1.0)
        norm.module.momentum = 0.0


def _fresh(model: nn.Module, _: Trained) -> None:
    for norm in tracking(model):
        norm.module.reset_running_stats()


def _warmed(model: nn.Module, trained: Trained, steps: int, momentum: float) -> None:
    """Let the statistics be those of some batches with another momentum."""
    _fresh(model, trained)
    for norm in tracking(model):
        norm.module.momentum = momentum
    model.train()
    for step in range(steps):
        part = trained.batches[step % len(trained.batches)]["pixel_values"]
        model(pixel_values=part)
    model.eval()


def _five(model: nn.Module, trained: Trained) -> None:
    _warmed(model, trained, 5, 0.1)


def _hasty(model: nn.Module, trained: Trained) -> None:
    _warmed(model, trained, 40, 0.99)


def _eps(value: float) -> Callable[[nn.Module, Trained], None]:
    def edit(model: nn.Module, _: Trained) -> None:
        for norm in tracking(model):
            norm.module.eps = value

    return edit


def _broken(value: float) -> Callable[[nn.Module, Trained], None]:
    def edit(model: nn.Module, _: Trained) -> None:
        tracking(model)[1].module.running_var[0] = value

    return edit


def _infinite(model: nn.Module, _: Trained) -> None:
    next(p for p in model.parameters() if p.dim() > 1).view(-1)[0] = torch.inf


def _middle(model: nn.Module) -> Any:
    found = tracking(model)
    return found[len(found) // 2].module


def _lost(model: nn.Module, _: Trained) -> None:
    layer = _middle(model)
    layer.running_mean.zero_()
    layer.running_var.fill_(1.0)


def _moved(model: nn.Module, _: Trained) -> None:
    layer = _middle(model)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(layer.running_mean), generator=generator)
    layer.running_mean += 2 * noise * layer.running_var.sqrt()


def _frozen(model: nn.Module, _: Trained) -> None:
    model.train()
    for norm in tracking(model):
        norm.module.requires_grad_(False)


def _handed_over(model: nn.Module, _: Trained) -> None:
    model.train()


def _last(trained: Trained) -> Case:
    one = {key: value[:1] for key, value in trained.batches[0].items()}
    return Case(trained.copied(), [*trained.batches, one])


def _domain(trained: Trained) -> Case:
    other = [{**b, "pixel_values": 1 - 0.5 * b["pixel_values"]} for b in trained.batches]
    return Case(trained.copied(), trained.batches, {"target": other})


def _converted(trained: Trained) -> Case:
    """A conversion that lost what one layer does besides."""
    model = trained.copied()
    with torch.no_grad():
        tracking(model)[1].module.bias += 1.0
    return Case(model, trained.batches, {"source": trained.copied()})


class _Views(nn.Module):
    """One model for two views of each image, as contrastive learning has them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, **_: Tensor) -> Tensor:
        first = logits(self.model(pixel_values=pixel_values))
        return first + logits(self.model(pixel_values=0.3 * pixel_values + 1.5))


def _views(trained: Trained) -> Case:
    model = _Views(trained.copied()).train()
    with torch.no_grad():
        for batch in trained.batches * 4:
            model(batch["pixel_values"])
    return Case(model.eval(), trained.batches)


class _Dropped(nn.Module):
    """A dropout in front of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.drop, self.layer = nn.Dropout(0.5), layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.drop(x))  # type: ignore[no-any-return]


def _dropped(model: nn.Module, trained: Trained) -> None:
    norm = tracking(model)[-1]
    parent, _, name = norm.name.rpartition(".")
    setattr(model.get_submodule(parent), name, _Dropped(norm.module))
    torch.manual_seed(0)
    model.train()
    for batch in trained.batches * 6:
        model(pixel_values=batch["pixel_values"])
    model.eval()


def _both(*plants: Callable[[Trained], Case]) -> Callable[[Trained], Case]:
    def make(trained: Trained) -> Case:
        case = Case(trained.copied(), trained.batches)
        for plant in plants:
            now = Trained(case.model, case.batches, trained.early, trained.average)
            case = plant(now)
        return case

    return make


INPUT, AVERAGED = ("input preprocessing",), ("averaged weights without statistics",)
LAG, YOUNG = ("running statistics that lag behind the weights",), ("too few batches",)
EPS, HASTY, BROKEN = ("ε changed",), ("momentum in the other convention",), ("broken values",)
ONE = ("statistics of",)  # … a layer lost or changed
FROZEN = ("frozen layers whose statistics move",)

PLANTED: tuple[Plant, ...] = (
    Plant("input × 255", INPUT, _fed(lambda x: 255 * x)),
    Plant("input × 16", INPUT, _fed(lambda x: 16 * x)),
    Plant("input / 255", INPUT, _fed(lambda x: x / 255)),
    Plant("input / 4", INPUT, _fed(lambda x: x / 4)),
    Plant("channels in reverse order", INPUT, _fed(lambda x: x.flip(1))),
    Plant("input not standardised", INPUT, _fed(lambda x: DEVIATION * x + MEAN)),
    Plant("input standardised twice", INPUT, _fed(lambda x: (x - MEAN) / DEVIATION)),
    Plant("input 8-bit, not standardised", INPUT, _fed(lambda x: 255 * (DEVIATION * x + MEAN))),
    Plant("averaged weights", AVERAGED, _edited(_averaged)),
    Plant("averaged weights, early statistics", AVERAGED, _edited(_averaged_early)),
    Plant("AveragedModel without buffers", AVERAGED, _named_average),
    Plant("statistics of an early step", LAG, _edited(_early)),
    Plant("momentum 0", ("momentum lost",), _edited(_momentum_zero)),
    Plant("statistics not loaded", YOUNG, _edited(_fresh)),
    Plant("statistics of 5 batches", YOUNG, _edited(_five)),
    Plant("momentum 0.99", HASTY, _edited(_hasty)),
    Plant("ε 0.1", EPS, _edited(_eps(0.1))),
    Plant("ε 1", EPS, _edited(_eps(1.0))),
    Plant("running variance NaN", BROKEN, _edited(_broken(torch.nan))),
    Plant("running variance negative", BROKEN, _edited(_broken(-1.0))),
    Plant("weight infinite", BROKEN, _edited(_infinite)),
    Plant("statistics of one layer lost", (*ONE, *YOUNG), _edited(_lost)),
    Plant("running mean of one layer moved", ONE, _edited(_moved)),
    Plant("frozen, but moving", FROZEN, _edited(_frozen)),
    Plant("train mode", ("train mode",), _edited(_handed_over)),
    Plant("last batch of one", ("last batch of one sample",), _last),
    Plant("another domain", ("another domain",), _domain),
    Plant("conversion", ("conversion changed the function",), _converted),
    Plant("shared by two views", ("shared layer",), _views),
    Plant("dropout 0.5 in front", ("dropout in front of batch norm",), _edited(_dropped)),
    Plant("input × 16 and ε 0.1", INPUT + EPS, _both(_edited(_eps(0.1)), _fed(lambda x: 16 * x))),
    Plant(
        "input × 255 and variance NaN",
        INPUT + BROKEN,
        _both(_edited(_broken(torch.nan)), _fed(lambda x: 255 * x)),
    ),
    Plant("averaged and frozen", AVERAGED + FROZEN, _both(_edited(_averaged), _edited(_frozen))),
    Plant("ε 0.1 and momentum 0.99", EPS + HASTY, _both(_edited(_hasty), _edited(_eps(0.1)))),
)
