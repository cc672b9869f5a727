"""Calls of layers as matrix products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anynorm.surgery.refitting.dense import DenseCall, DenseCalls, as_matrix, as_weight

CALLS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "linear": (F.linear, (3, 4), (5, 4), {}),
    "linear with positions": (F.linear, (2, 5, 4), (3, 4), {}),
    "padding": (torch.conv2d, (3, 4, 7, 9), (6, 4, 3, 3), {"padding": 1}),
    "stride": (torch.conv2d, (3, 4, 7, 9), (6, 4, 3, 2), {"stride": (2, 1)}),
    "same": (torch.conv1d, (3, 4, 7), (6, 4, 4), {"padding": "same"}),
    "valid": (torch.conv1d, (3, 4, 7), (6, 4, 4), {"padding": "valid"}),
    "groups and dilation": (
        *(torch.conv2d, (3, 4, 7, 9), (6, 2, 3, 3)),
        {"padding": "same", "dilation": 2, "groups": 2},
    ),
    "no batch axis": (torch.conv2d, (4, 5, 5), (2, 4, 3, 3), {}),
    "three axes": (torch.conv3d, (2, 2, 4, 4, 4), (3, 2, 2, 2, 2), {}),
    "transposed": (
        *(torch.conv_transpose2d, (3, 4, 5, 6), (4, 3, 3, 2)),
        {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": (2, 1)},
    ),
    "transposed, much padding": (torch.conv_transpose1d, (2, 2, 6), (2, 3, 3), {"padding": 3}),
}

# Of an even kernel with padding="same", which is copied with another zero.
EVEN = pytest.mark.filterwarnings("ignore:Using padding='same'")


def the_call(name: str) -> DenseCall:
    function, x, weight, options = CALLS[name]
    generator = torch.Generator().manual_seed(0)
    tensors = (torch.randn(shape, generator=generator) for shape in (x, weight))
    return DenseCall(function, {**dict(zip(("input", "weight"), tensors, strict=True)), **options})


@EVEN
@pytest.mark.parametrize("name", CALLS)
def test_rows_times_the_matrix_are_the_outputs(name: str) -> None:
    call = the_call(name)
    matrix = as_matrix(call.weight, call.groups, call.transposed).double()
    pieces = list(call.pieces(call.run(call.weight, None)))
    assert len(pieces) > (call.x.dim() != call.weight.dim() - 1)  # a batch is more than one piece
    for rows, outputs in pieces:
        torch.testing.assert_close(rows @ matrix.mT, outputs, rtol=1e-5, atol=1e-5)


@EVEN
@pytest.mark.parametrize("name", CALLS)
def test_a_matrix_is_a_weight_again(name: str) -> None:
    call = the_call(name)
    matrix = as_matrix(call.weight, call.groups, call.transposed)
    assert as_weight(matrix, call.weight.shape, call.transposed).equal(call.weight)


@EVEN
@pytest.mark.parametrize("name", CALLS)
def test_the_axis_of_the_channels(name: str) -> None:
    call = the_call(name)
    y = call.run(call.weight, None)
    outputs = as_matrix(call.weight, call.groups, call.transposed).shape[:2].numel()
    assert y.shape[call.channel_axis] == outputs


def test_only_calls_with_the_given_weights_are_handed_over() -> None:
    one, other = torch.nn.Conv2d(2, 3, 1), torch.nn.Conv2d(3, 2, 1, padding_mode="reflect")
    seen: list[str] = []

    def handle(name: str, call: DenseCall) -> Tensor:
        seen.append(name)
        return call.run(2 * call.weight, None)

    x = torch.randn(1, 2, 4, 4)
    with DenseCalls({"one": one.weight}, handle):
        y = other(torch.relu(one(x)))
    assert seen == ["one"]
    expected = other(torch.relu(2 * F.conv2d(x, one.weight)))
    assert torch.allclose(y, expected, atol=1e-6)
