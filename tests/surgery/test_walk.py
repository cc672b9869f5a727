"""The walk over a model's modules."""

from __future__ import annotations

from torch import nn

from anynorm.surgery import Place, put, walk


def test_tied_modules_come_once_with_every_name() -> None:
    shared = nn.Sequential(nn.ReLU())
    model = nn.Sequential(shared, nn.ModuleDict({"again": shared}))
    names = {place.module: place.names for place in walk(model)}
    assert names[model] == ("",)
    assert names[shared] == ("0", "1.again")
    assert names[shared[0]] == ("0.0", "1.again.0")


def test_put_reaches_every_name() -> None:
    shared = nn.ReLU()
    model = nn.Sequential(shared, nn.Sequential(shared))
    place = next(place for place in walk(model) if place.module is shared)
    new = nn.Tanh()
    assert put(model, place, new) is model
    assert model[0] is model[1][0] is new


def test_put_at_the_root_gives_the_new_module() -> None:
    model, new = nn.ReLU(), nn.Tanh()
    assert put(model, Place(model, ("",)), new) is new
