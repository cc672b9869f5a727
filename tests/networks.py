"""Small networks with the structures that surgery must understand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Sequential:
    """A convolution without padding, its batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, bias=False, **options)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Again(nn.Module):
    """A block that runs twice on batches of an odd size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = conv(3, 6), conv(6, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(self.stem(x))
        z: Tensor = self.head(self.block(y) if len(x) % 2 else y)
        return z


class Residual(nn.Module):
    """A stem, two branches that are summed, and a head behind ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = conv(3, 8), conv(8, 8, 1)
        self.two = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.head(torch.relu(x + self.two(self.one(x))))
        return y


class Concatenated(nn.Module):
    """Two branches side by side, as in Inception and DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv(3, 6), conv(3, 4), conv(10, 5, 1)
        self.last = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.head(torch.cat([self.one(x), self.two(x)], 1)))
        return y


class Gated(nn.Module):
    """Squeeze and excitation around a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = conv(3, 8), conv(8, 8, groups=8)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.stem(x))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        y: Tensor = self.head((x * gate[:, :, None, None]).mean((2, 3)))
        return y


class Shuffled(nn.Module):
    """Grouped convolutions with a channel shuffle between, and halves as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv(3, 8), conv(8, 8, 1, groups=2), conv(4, 4, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.stem(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        left, right = x.chunk(2, 1)
        y: Tensor = self.head(torch.cat([left, self.two(right)], 1))
        return y


class Scaled(nn.Module):
    """A learned factor for each channel, and slopes for each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.slopes = conv(3, 6), nn.PReLU(6)
        self.factor = nn.Parameter(torch.rand(6, 1, 1))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.slopes(self.stem(x) * self.factor))
        return y


class Twice(nn.Module):
    """One block that is called two times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = conv(3, 6), conv(6, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.block(self.block(self.stem(x))))
        return y


def flattened() -> nn.Module:
    """Positions of each channel side by side in front of a linear head."""
    return nn.Sequential(conv(3, 6), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))


def transposed() -> nn.Module:
    """Up and down again, in groups too."""
    up = nn.ConvTranspose2d(6, 8, 2, stride=2, bias=False)
    grouped = nn.ConvTranspose2d(8, 4, 1, groups=2)
    norms = nn.BatchNorm2d(8), nn.BatchNorm2d(4)
    relu = nn.ReLU()
    last = nn.Conv2d(4, 2, 1)
    return nn.Sequential(conv(3, 6), up, norms[0], relu, grouped, norms[1], relu, last)


def rows() -> nn.Module:
    """Linear layers with batch norm."""
    layers = [nn.Linear(12, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 7), nn.BatchNorm1d(7)]
    return nn.Sequential(nn.Flatten(), *layers, nn.ReLU(), nn.Linear(7, 2))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (4, 3, 8, 8)),
    "concatenated": (Concatenated, (4, 3, 8, 8)),
    "gated": (Gated, (4, 3, 8, 8)),
    "shuffled": (Shuffled, (4, 3, 8, 8)),
    "scaled": (Scaled, (4, 3, 8, 8)),
    "twice": (Twice, (4, 3, 8, 8)),
    "flattened": (flattened, (4, 3, 8, 8)),
    "transposed": (transposed, (4, 3, 8, 8)),
    "rows": (rows, (4, 3, 2, 2)),
}


def network(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network in eval mode with γ, β and statistics of some training, and an input."""
    return prepared(*NETWORKS[name], seed)


def prepared(
    make: Callable[[], nn.Module], shape: tuple[int, ...], seed: int = 0
) -> tuple[nn.Module, Tensor]:
    """A new network in eval mode with γ, β and statistics of some training, and an input."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        for layer in model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias)
        for _ in range(3):
            model(torch.randn(shape))
        return model.eval(), torch.randn(shape)
