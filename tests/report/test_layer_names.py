"""Names of layers: numbers are counted, names stay, none is lost."""

from __future__ import annotations

import pytest

from anynorm.report.layer_names import readable


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
