"""What loaders give, and how a model is called on it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery.batches import call, described, device_of, each, tensors_of


class Named(nn.Module):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x * scale


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    "batch", [X, (X, "target"), [X, 1, 2], {"x": X}, {"x": X, "scale": 1.0}], ids=described
)
def test_batches_of_every_form(batch: Any) -> None:
    assert torch.equal(call(Named(), batch), X)


def test_forward_replaces_the_rule() -> None:
    found = call(Named(), ("y", X), lambda model, batch: model(batch[1], scale=2.0))
    assert torch.equal(found, 2 * X)


@pytest.mark.parametrize("batch", ["text", (), {"z": X}, None], ids=str)
def test_what_a_model_cannot_be_called_on_is_named_with_the_rule(batch: Any) -> None:
    with pytest.raises(AnynormError, match=r"calling Named on a batch, .* raised .*give forward="):
        call(Named(), batch)


def test_batches_come_to_the_device_of_the_model() -> None:
    model = nn.Linear(3, 2, device="meta")
    assert call(model, (X, X)).device.type == "meta"
    assert device_of(nn.ReLU()) is None


def test_outputs_of_every_form() -> None:
    logits, hidden = torch.zeros(2), torch.ones(3)
    output = {"logits": logits, "more": [hidden, None, torch.zeros(1, dtype=torch.int64)]}
    assert [len(t) for t in tensors_of(output)] == [2, 3]
    assert tensors_of(SimpleNamespace(hidden=hidden))[0] is hidden
    with pytest.raises(
        AnynormError, match="the model returned str, which has no floating-point tensor"
    ):
        tensors_of("nothing")


def test_batches_that_cannot_be_gone_through() -> None:
    with pytest.raises(AnynormError, match=r"batches is an int.*A single batch goes into a list"):
        list(each(5))  # type: ignore[arg-type]
    with pytest.raises(AnynormError, match="or a new generator"):
        list(each(iter([])))
