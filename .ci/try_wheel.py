"""Try an installed wheel: the kernels are loaded and compute."""

import torch

import anynorm
from anynorm import kernels

print(anynorm.info())
assert kernels.available(), kernels.why_not()
x = torch.randn(8, 16, 32, 32, requires_grad=True)
y = anynorm.BatchNorm2d(16, activation="relu")(x)
y.backward(torch.randn_like(y))
theirs = torch.nn.functional.batch_norm(x, None, None, training=True).relu()
torch.testing.assert_close(y, theirs)
