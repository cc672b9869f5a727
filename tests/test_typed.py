"""What checkers of types see: layers give tensors, constructors have torch's arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SEEN = """
import torch
import anynorm
from torch import nn

x = torch.zeros(2, 3, 4, 4)
reveal_type(anynorm.BatchNorm2d(3)(x))  # Tensor
reveal_type(anynorm.LazyBatchNorm2d()(x))  # Tensor
reveal_type(anynorm.SyncBatchNorm(3)(x))  # Tensor
reveal_type(anynorm.InstanceNorm2d(3)(x, mask=x > 0))  # Tensor
reveal_type(anynorm.GroupNorm(1, 3, activation="relu")(x, x))  # Tensor
reveal_type(anynorm.LayerNorm((4, 4))(x))  # Tensor
reveal_type(anynorm.RMSNorm(4)(x))  # Tensor
reveal_type(anynorm.FrozenBatchNorm(3)(x))  # Tensor
reveal_type(anynorm.create("ghost", 3)(x))  # Tensor
reveal_type(anynorm.Activate("relu")(x))  # Tensor
reveal_type(anynorm.CosineConv2d(3, 2, 3)(x))  # Tensor


class Net(nn.Module):
    width: int


reveal_type(anynorm.convert(Net(), "torch").model)  # Net
reveal_type(anynorm.freeze(Net()).model)  # Net
reveal_type(anynorm.fold(Net(), x).sure())  # Net
reveal_type(anynorm.recalibrate(Net(), [x]).model)  # Net
reveal_type(anynorm.prune(Net(), x, ratio=0.5).model.width)  # int
"""
WRONG = """
import anynorm

anynorm.BatchNorm2d("64")  # arg-type
anynorm.LayerNorm(4, epsilon=1e-5)  # call-arg
anynorm.GroupNorm(2)  # call-arg
anynorm.BatchNorm2d(3)([1.0])  # arg-type
anynorm.InstanceNorm1d(3, activation=5)  # arg-type
anynorm.fold("resnet18", None)  # type-var
"""


@pytest.mark.slow
@pytest.mark.parametrize("text", [SEEN, WRONG], ids=["right", "wrong"])
def test_types(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    source = Path(__file__).parents[1] / "src"
    monkeypatch.setenv("MYPYPATH", str(source))
    file = tmp_path / "user.py"
    file.write_text(text, "utf-8")
    config = tmp_path / "none.ini"
    config.write_text("[mypy]\nstrict = true\nfollow_imports = silent\n", "utf-8")
    cache = str(tmp_path / "cache")
    told, errors, _ = api.run(
        [
            "--config-file",
            str(config),
            "--cache-dir",
            cache,
            "--python-executable",
            sys.executable,
            str(file),
        ]
    )
    assert not errors
    lines = {
        int(line.split(":")[1]): line for line in told.splitlines() if line.startswith(str(file))
    }
    for number, line in enumerate(text.splitlines(), 1):
        code, comment, expected = line.partition("  # ")
        if comment:
            assert expected in lines.pop(number, "nothing"), code
    assert not lines
