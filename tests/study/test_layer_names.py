"""Names of layers: numbers are counted, names stay, none is lost."""

from __future__ import annotations

import pytest

from anynorm.study.layer_names import readable


def test_numbered_layers_are_named_by_their_kind() -> None:
    names, kinds = ["0", "1", "4", "head.0"], ["Conv2d", "BatchNorm2d", "Linear", "Linear"]
    assert readable(names, kinds) == ["conv 1", "norm 1", "linear 1", "head 1"]
    # A record that was cut short may lack kinds.
    assert readable(names, kinds[:1]) == ["conv 1", "layer 1", "layer 2", "head 1"]
    assert readable(names[:1], kinds) == ["conv 1"]
    assert readable(["0"], ["Bilinear"]) == ["bilinear 1"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["0", "3", "6"], ["layer 1", "layer 2", "layer 3"]),
        (["0.0", "0.3", "1.0"], ["layer 1", "layer 2", "layer 3"]),
        (["hidden.0", "hidden.3", "head"], ["hidden 1", "hidden 2", "head"]),
        (["layer1.0.conv1", "fc"], ["layer1.0.conv1", "fc"]),
        (["layer 1", "0"], ["layer 1", "0"]),
        ([], []),
    ],
)
def test_readable_names(names: list[str], shown: list[str]) -> None:
    assert readable(names) == shown
