"""What fold returns, exported to ONNX and run by onnxruntime, computes what the model computed."""

import logging
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from programs import settled
from torch import nn

import anynorm


class Residual(nn.Module):
    """A block whose sum passes the batch norm of one branch."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))

    def forward(self, x):
        return torch.relu(x + self.branch(x))


def stem(*layers):
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU(), *layers)


IMAGE, SOUND, ROWS = (2, 3, 12, 12), (2, 3, 40), (6, 5)
CASES = {
    "convolutions": (lambda: stem(nn.Conv2d(8, 4, 3, 2, groups=2), nn.BatchNorm2d(4)), IMAGE),
    "depthwise": (lambda: stem(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)), IMAGE),
    "transposed": (lambda: stem(nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6)), IMAGE),
    "residual": (lambda: stem(Residual(), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)), IMAGE),
    "sound": (lambda: nn.Sequential(nn.Conv1d(3, 8, 5), nn.BatchNorm1d(8), nn.ReLU()), SOUND),
    "linear": (lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh()), ROWS),
    "layer norm": (lambda: nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 4), nn.RMSNorm(4)), ROWS),
}


# One export takes about a second.
QUICK = ("convolutions", "linear")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES],
)
def test_the_exported_fold_computes_what_the_model_did(name, tmp_path):
    make, shape = CASES[name]
    torch.manual_seed(0)
    model, x = settled(make()), torch.randn(shape)
    folded = anynorm.fold(model, x).sure()
    path = tmp_path / "folded.onnx"
    exported(folded, x, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = model(x).detach().numpy()
    # A fold rounds each weight once, and sums have other orders in the two programs: with at most
    # 72 terms of about the size of the outputs that is well below 1e-5 of the largest.
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    audit = anynorm.audit(path)
    assert audit.status == 0
    assert "batch" not in audit.facts["families"]


def exported(model, x, path):
    """Export with torch's own messages left out, which are about its other extensions."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (x,), path, dynamo=True, verbose=False, external_data=False)
    finally:
        logging.disable(logging.NOTSET)
