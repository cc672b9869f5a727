"""A small transformer that predicts the next token, with RMS norm before each of its parts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

import anynorm

__all__ = ["NORMS", "Transformer"]

HEAD = 64
Norm = Callable[[int], nn.Module]
NORMS: dict[str, Norm] = {"ours": anynorm.RMSNorm, "eager": nn.RMSNorm}


class Attention(nn.Module):
    """Causal attention with heads of 64 features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 3 * width, bias=False)
        self.outer = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        parts = self.inner(x).view(n, length, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*parts.unbind(0), is_causal=True)
        z: Tensor = self.outer(y.transpose(1, 2).reshape(x.shape))
        return z


class Layer(nn.Module):
    """Attention and two linear layers, each normalized before and added to what came in."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm(width), Attention(width)
        self.linear_norm = norm(width)
        self.linear = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.linear(self.linear_norm(x))
        return y


class Transformer(nn.Module):
    """(N, length) tokens to (N, length, tokens) scores of the next."""

    def __init__(self, norm: Norm, width: int = 256, layers: int = 4, tokens: int = 1000) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.layers = nn.Sequential(*(Layer(width, norm) for _ in range(layers)))
        self.norm, self.scores = norm(width), nn.Linear(width, tokens, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.scores(self.norm(self.layers(self.embedding(tokens))))
        return y
