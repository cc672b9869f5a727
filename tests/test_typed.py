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
reveal_type(anynorm.fuse(Net(), x).sure())  # Net
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
def test_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    monkeypatch.setenv("MYPYPATH", str(Path(__file__).parents[1] / "src"))
    config = tmp_path / "none.ini"
    config.write_text("[mypy]\nstrict = true\nfollow_imports = silent\n", "utf-8")
    texts = {tmp_path / "seen.py": SEEN, tmp_path / "wrong.py": WRONG}
    for file, text in texts.items():
        file.write_text(text, "utf-8")
    options = ["--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    told, errors, _ = api.run(
        [*options, "--python-executable", sys.executable, *map(str, texts)],
    )
    assert not errors
    lines: dict[tuple[str, int], str] = {}
    for line in told.splitlines():
        name, *rest = line.split(":")
        if rest and rest[0].isdigit():
            lines[name, int(rest[0])] = lines.get((name, int(rest[0])), "") + line
    for file, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            code, comment, expected = line.partition("  # ")
            if comment:
                assert expected in lines.pop((str(file), number), "nothing"), code
    assert not lines
