"""A small decoder-only transformer that predicts the next character."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anynorm.study.norm_argument import MakeNorm

__all__ = ["CharTransformer"]


class CharTransformer(nn.Module):
    """Blocks of causal attention and an MLP on a residual stream, with learned positions.

    Args:
        length: The longest sequence.
        symbols: The size of the alphabet, for inputs and outputs.
        norm: Makes the normalizers, two for each block.
        placement: ``"pre"``: x + f(norm(x)), and one more normalizer before the output layer
            (Xiong et al. 2020, arXiv:2002.04745). ``"post"``: norm(x + f(x)), as in Vaswani et al.
            2017 (arXiv:1706.03762).
        blocks, width, heads: The size of the network.

    Shape:
        Input: integers (N, T) with T ≤ `length`. Output: scores (N, T, `symbols`).
    """

    def __init__(
        self,
        length: int,
        symbols: int,
        *,
        norm: MakeNorm,
        placement: str,
        blocks: int = 4,
        width: int = 64,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(_Block(width, heads, norm, placement) for _ in range(blocks)))
        ends_normalized = placement == "post"
        self.norm = nn.Identity() if ends_normalized else norm(width, channels_last=True)
        self.head = nn.Linear(width, symbols)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the next character at each position."""
        positions = torch.arange(x.shape[1], device=x.device)
        stream = self.symbols(x) + self.positions(positions)
        scores: Tensor = self.head(self.norm(self.blocks(stream)))
        return scores


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, norm: MakeNorm, placement: str) -> None:
        super().__init__()
        self.pre = placement == "pre"
        self.attention_norm = norm(width, channels_last=True)
        self.attention = _Attention(width, heads, norm)
        self.mlp_norm = norm(width, channels_last=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        for norm, part in ((self.attention_norm, self.attention), (self.mlp_norm, self.mlp)):
            x = x + part(norm(x)) if self.pre else norm(x + part(x))
        return x


class _Attention(nn.Module):
    """Causal self-attention; queries and keys may be normalized over the width of a head."""

    def __init__(self, width: int, heads: int, norm: MakeNorm) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.query_norm = norm(width // heads, channels_last=True, qk=True)
        self.key_norm = norm(width // heads, channels_last=True, qk=True)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (self._by_head(part) for part in self.inputs(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(
            self.query_norm(queries), self.key_norm(keys), values, is_causal=True
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def _by_head(self, x: Tensor) -> Tensor:
        """Bring (N, T, C) to (N, heads, T, C / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


def _initialise(layer: nn.Module) -> None:
    """Initialize weights so that outputs have about the size of inputs; biases are zero."""
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Embedding):
        nn.init.normal_(layer.weight, std=layer.embedding_dim**-0.5)
