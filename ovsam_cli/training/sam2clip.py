"""The SAM2CLIP stage (spec 7.1): a neck on a frozen CLIP trunk learns what SAM's encoder says.

Only the neck is trained, by the plain mean squared error over all elements of the image embedding,
those of the padding included. Images are resized, never flipped or cropped, because the teacher's
features were computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.checkpoint import build_sam2clip_neck
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.sam2clip import Sam2ClipNeck
from ovsam_cli.model.sam_encoder import SamEncoder
from ovsam_cli.training.batches import LossModule
from ovsam_cli.training.distill_batches import DistillBatch


@dataclass(frozen=True, slots=True)
class DistillRecipe:
    """The published schedule (spec 7.1).

    Attributes:
        epochs: passes over the images.
        images_a_step: of all processes together; the learning rate is for this many.
        learning_rate, weight_decay, betas, gradient_clip: of AdamW.
        warmup_steps, warmup_share: linear rise, from this share of the rate.
        final_share: of the rate, where the cosine ends.
    """

    epochs: int = 24
    images_a_step: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    gradient_clip: float = 5.0
    warmup_steps: int = 500
    warmup_share: float = 0.001
    final_share: float = 0.01

    def scale_rate(self, images_a_step: int) -> float:
        """The learning rate for another number of images a step, in proportion."""
        return self.learning_rate * images_a_step / self.images_a_step

    def count_steps(self, num_images: int, images_a_step: int) -> int:
        """Steps of all epochs, the last one perhaps beginning another epoch."""
        return math.ceil(self.epochs * num_images / images_a_step)


class Sam2ClipLosses(LossModule[DistillBatch]):
    """Mean squared error between the neck's embeddings and the teacher's.

    Args:
        backbone: the trunk; frozen here.
        neck: trained.
        teacher: SAM's encoder, frozen here; None where batches bring features.
    """

    def __init__(
        self, *, backbone: nn.Module, neck: Sam2ClipNeck, teacher: SamEncoder | None = None
    ) -> None:
        super().__init__()
        self.backbone = _freeze(backbone)
        self.neck = neck
        self.teacher = None if teacher is None else _freeze(teacher)

    def forward(self, batch: DistillBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss `distillation`; nothing in it is random."""
        with torch.no_grad():
            trunk_maps = self.backbone(batch.pixels)
        embeddings = self.neck(trunk_maps)  # (I, D, h, w)
        target = self.find_target(batch)
        return {"distillation": F.mse_loss(embeddings.float(), target)}

    def find_target(self, batch: DistillBatch) -> Tensor:
        """(I, D, h, w) float32: the batch's features, or what the live teacher says now."""
        if batch.teacher_embeddings is not None:
            return batch.teacher_embeddings.float()
        if self.teacher is None:
            raise ValueError("the batch brings no teacher features and there is no live teacher")
        with torch.no_grad():
            embeddings: Tensor = self.teacher(batch.pixels)
        return embeddings.float()

    def trained_parts(self) -> nn.Module:
        """The neck."""
        return self.neck

    @torch.no_grad()
    def compute_scores(
        self, weights: Mapping[str, Tensor], batches: Iterable[DistillBatch]
    ) -> dict[str, float]:
        """How near the neck of these weights comes to the teacher.

        Returns:
            `mse`; `cosine`, the mean over all places of the cosine between both embeddings; and
            `score`, which is -mse.
        """
        errors, cosines = [], []
        for batch in batches:
            target = self.find_target(batch)
            found = torch.func.functional_call(
                self.neck, dict(weights), (self.backbone(batch.pixels),)
            )
            errors.append(F.mse_loss(found.float(), target))
            cosines.append(F.cosine_similarity(found.float(), target, dim=1).mean())
        mse = float(torch.stack(errors).mean())
        return {"score": -mse, "mse": mse, "cosine": float(torch.stack(cosines).mean())}


def _freeze(part: nn.Module) -> nn.Module:
    return part.requires_grad_(False).eval()


def build_neck(config: OVSAMConfig, *, pos_embed: Tensor, seed: int) -> Sam2ClipNeck:
    """A neck as training starts with it (spec 7.1).

    PyTorch's own start for all layers, N(0, 1) for the level encoding, zero relative positions;
    the absolute positions are the teacher's and are never trained.

    Args:
        config: its sizes.
        pos_embed: (1, h, w, C), of the teacher.
        seed: of the weights.

    Raises:
        ValueError: `pos_embed` is not of the neck's shape.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        neck = build_sam2clip_neck(config)
    if pos_embed.shape != neck.pos_embed.shape:
        raise ValueError(
            f"pos_embed is {tuple(pos_embed.shape)}, not {tuple(neck.pos_embed.shape)}"
        )
    neck.pos_embed.copy_(pos_embed)
    return neck


def compute_sine_positions(grid_size: int, embed_dim: int) -> Tensor:
    """(1, h, w, C) sines and cosines of column and row, for a teacher of another width.

    A quarter of the channels each: sin x, cos x, sin y, cos y, with wavelengths from 2 pi to
    20000 pi in geometric steps (the table of Masked Autoencoders, He et al. 2022).

    Raises:
        ValueError: C is no multiple of four.
    """
    if embed_dim % 4:
        raise ValueError(f"embed_dim ({embed_dim}) must be a multiple of 4")
    quarter = embed_dim // 4
    frequencies = 10000 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(grid_size, dtype=torch.float64)[:, None] * frequencies  # (L, C / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (L, C / 2)
    by_column = waves[None].expand(grid_size, -1, -1)
    by_row = waves[:, None].expand(-1, grid_size, -1)
    return torch.cat([by_column, by_row], dim=-1)[None].float()
