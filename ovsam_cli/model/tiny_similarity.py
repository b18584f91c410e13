"""Similarity of places to the seeds of a prompt: what looks like the object, and what does not.

A learned decoder knows what it has seen in training; the comparison of a place with the places that
the prompt itself points out holds for pictures of any kind, as in interactive segmentation by
nearest neighbors. The decoder reads it as further maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.model.tiny_prompts import NUM_SEEDS, draw_seeds

NUM_LEVELS = 3  # learned fine, learned coarse, the trunk's finest map as it is
VALUES_A_LEVEL = 4
NUM_SIMILARITIES = NUM_LEVELS * VALUES_A_LEVEL
NEAREST_FOREGROUND = 2 * VALUES_A_LEVEL + 2  # rows of the trunk's own level
NEAREST_BACKGROUND = NEAREST_FOREGROUND + 1


@dataclass(frozen=True, slots=True)
class Likeness:
    """Unit vectors of an image's places.

    Attributes:
        fine: (I, C, 4h, 4w) the levels of stride 4 one after another.
        coarse: (I, seed_dim, h, w).
        seed_dim: channels of a learned level.
    """

    fine: Tensor
    coarse: Tensor
    seed_dim: int

    def split_fine(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, N) values of `fine` -> those of the learned level and of the trunk's."""
        return values[:, : self.seed_dim], values[:, self.seed_dim :]


@dataclass(frozen=True, slots=True)
class Seeds:
    """What B prompts' seeds look like.

    Attributes:
        levels: (B, C_l, 2 NUM_SEEDS) unit vectors of each level, the object's seeds first.
        is_seen: (B, 2 NUM_SEEDS) bool, which lie in the frame.
    """

    levels: tuple[Tensor, ...]
    is_seen: Tensor

    def take(self, rows: Tensor) -> Seeds:
        """Those of some of the prompts."""
        return Seeds(tuple(level[rows] for level in self.levels), self.is_seen[rows])

    def average(self, level: Tensor) -> Tensor:
        """(B, C, 2 NUM_SEEDS) -> (B, C, 2) means of the object's and of the other seeds."""
        shape = (*level.shape[:2], 2, NUM_SEEDS)
        shares = self.is_seen.to(level.dtype).view(len(level), 1, 2, NUM_SEEDS)
        return (level.view(shape) * shares).sum(dim=3) / shares.sum(dim=3).clamp(min=1)


class SeedSimilarity(nn.Module):
    """Compares places with seeds, in two learned spaces and in the trunk's own.

    Args:
        fine_dim: channels of the fine features.
        embed_dim: D.
        seed_dim: of the learned spaces.
    """

    def __init__(self, *, fine_dim: int, embed_dim: int, seed_dim: int) -> None:
        super().__init__()
        self.seed_dim = seed_dim
        self.fine = nn.Conv2d(fine_dim, seed_dim, 1)
        self.coarse = nn.Conv2d(embed_dim, seed_dim, 1)
        self.embed = nn.Linear(2 * seed_dim, embed_dim)

    def project(self, fine: Tensor, image_embeddings: Tensor, trunk_map: Tensor) -> Likeness:
        """Unit vectors of fine features (I, C, 4h, 4w), embeddings and the trunk's finest map."""
        learned = F.normalize(self.fine(fine), dim=1)
        levels = torch.cat([learned, F.normalize(trunk_map, dim=1)], dim=1)
        coarse = F.normalize(self.coarse(image_embeddings), dim=1)
        return Likeness(levels, coarse, self.seed_dim)

    def read_seeds(self, likeness: Likeness, prompts: ModelPrompts, model_size: int) -> Seeds:
        """What the seeds of B prompts look like in each level."""
        foreground, background, is_seen = draw_seeds(prompts, model_size)
        places = torch.cat([foreground, background], dim=1)
        fine = sample_image_maps(likeness.fine, places, prompts.image_index, model_size)
        coarse = sample_image_maps(likeness.coarse, places, prompts.image_index, model_size)
        learned, trunk = likeness.split_fine(fine)
        is_seen = torch.cat([torch.ones_like(is_seen), is_seen], dim=1)
        return Seeds((learned, coarse, trunk), is_seen)

    def embed_seeds(self, seeds: Seeds) -> Tensor:
        """(B, 1, D) a token of what the object looks like at its seeds."""
        own = [level[:, :, :NUM_SEEDS].mean(dim=2) for level in seeds.levels[:2]]
        token: Tensor = self.embed(torch.cat(own, dim=1))[:, None]
        return token


def compare(seeds: Seeds, values: Sequence[Tensor]) -> Tensor:
    """Similarity of N places a prompt to its seeds.

    Args:
        seeds: of B prompts.
        values: (B, C_l, N) unit vectors of the places, or (C_l, N) of places all prompts share.

    Returns:
        (B, NUM_SIMILARITIES, N): for each level the product with the mean of the object's and of
        the other seeds, then the cosine with the nearest of each; -1 where none is seen.
    """
    found = []
    is_hidden = ~seeds.is_seen[:, :, None]
    for level, places in zip(seeds.levels, values, strict=True):
        cosines = (level.transpose(1, 2) @ places).masked_fill(is_hidden, -1.0)  # (B, 2K, N)
        cosines = cosines.view(len(level), 2, NUM_SEEDS, places.shape[-1])
        found += [seeds.average(level).transpose(1, 2) @ places, cosines.amax(dim=2)]
    return torch.cat(found, dim=1)


def sample_image_maps(maps: Tensor, places: Tensor, image_index: Tensor, model_size: int) -> Tensor:
    """Bilinear values of the maps of prompts' images.

    Args:
        maps: (I, C, h, w).
        places: (B, N, 2) pixels (x, y), model frame.
        image_index: (B,) int64.
        model_size: side of the model frame in pixels.

    Returns:
        (B, C, N).
    """
    if len(maps) == 1:
        return _sample_one(maps, places, model_size)
    # By image: maps of every prompt would be a copy of the whole image's for each.
    rows = [(image_index == number).nonzero()[:, 0] for number in range(len(maps))]
    parts = [
        _sample_one(maps[number : number + 1], places[chosen], model_size)
        for number, chosen in enumerate(rows)
    ]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def _sample_one(maps: Tensor, places: Tensor, model_size: int) -> Tensor:
    """(1, C, h, w) maps at (B, N, 2) places -> (B, C, N)."""
    flat = places.reshape(1, -1, 2)
    values = sample_own_maps(maps, flat, model_size)  # (1, C, B * N)
    return values.view(maps.shape[1], *places.shape[:2]).transpose(0, 1)


def sample_own_maps(maps: Tensor, places: Tensor, model_size: int) -> Tensor:
    """Bilinear values of (B, C, h, w) maps at each one's (B, N, 2) places: (B, C, N)."""
    grid = (places / model_size * 2 - 1)[:, None]  # (B, 1, N, 2)
    return F.grid_sample(maps, grid, align_corners=False, padding_mode="border")[:, :, 0]
