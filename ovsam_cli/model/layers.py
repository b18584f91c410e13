"""Small layers that several parts share; attribute names are those of the official weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of (B, D, h, w) maps, epsilon inside the square root."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (B, D, h, w) over D."""
        return self.normalize_last(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def normalize_last(self, rows: Tensor) -> Tensor:
        """Normalize (..., D) over D."""
        return super().forward(rows)


class FeedForward(nn.Module):
    """Two linear layers with an activation between: (..., D) -> (..., D)."""

    def __init__(
        self, embed_dim: int, mlp_dim: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embed_dim, mlp_dim)
        self.lin2 = nn.Linear(mlp_dim, embed_dim)
        self.activation = activation

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., D) tokens to (..., D)."""
        output: Tensor = self.lin2(self.activation(self.lin1(tokens)))
        return output


class Mlp(nn.Module):
    """Linear layers with ReLU between them: (..., in_dim) -> (..., out_dim)."""

    def __init__(self, *, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        sizes = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., in_dim) to (..., out_dim)."""
        for layer in self.layers[:-1]:
            tokens = F.relu(layer(tokens))
        output: Tensor = self.layers[-1](tokens)
        return output


class ConvUnit(nn.Module):
    """A convolution under the name `conv`, as the official FPN and head weights have it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the convolution to (B, D, h, w)."""
        output: Tensor = self.conv(maps)
        return output


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Where results are read: no half precision, even within autocast."""
    return torch.autocast(device.type, enabled=False)


def in_full(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values.float() if values.dtype.itemsize < 4 else values


def multiply_in_full(left: Tensor, right: Tensor) -> Tensor:
    """(B, N, C) @ (B, C, M) in float32 or better, even within autocast."""
    with full_precision(left.device):
        return torch.bmm(in_full(left), in_full(right))
