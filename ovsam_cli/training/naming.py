"""Names alone: regions described once by frozen parts, then a head trained on them many times.

A view costs the trunk, a region next to nothing; the head needs hundreds of thousands of passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import compute_class_logits
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.tiny_regions import TinyRegionHead
from ovsam_cli.training.batches import LossModule, SkippedImage
from ovsam_cli.training.clip2sam import MapNoise, TrainedParts
from ovsam_cli.training.losses import classification_loss

HEAD_PATH = "mask_decoder.roi_conv"
NAME_NOISE = MapNoise(noise=0.5, dropout=0.5, gain=0.3)


@dataclass(frozen=True, slots=True)
class RegionBatch:
    """R described regions.

    Attributes:
        descriptors: (R, DESCRIPTOR_SIZE) float.
        labels: (R,) int64 rows of the text embeddings; K is background.
        skipped: nothing here; images were read before.
    """

    descriptors: Tensor
    labels: Tensor
    skipped: tuple[SkippedImage, ...] = ()

    @property
    def num_images(self) -> int:
        """R: what one region costs is counted as an image."""
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        return replace(self, descriptors=self.descriptors.to(device), labels=self.labels.to(device))


class RegionSource:
    """Random regions by number; rare names more often than their share, common ones less.

    Args:
        descriptors: (n, DESCRIPTOR_SIZE) float16.
        labels: (n,) int64.
        batch_size: R.
        seed: of the choice.
    """

    def __init__(self, descriptors: Tensor, labels: Tensor, *, batch_size: int, seed: int) -> None:
        self.descriptors, self.labels = descriptors, labels
        self.batch_size, self.seed = batch_size, seed
        shares = np.bincount(labels.numpy())[labels.numpy()] ** -0.5
        self.sums = np.cumsum(shares / shares.sum())

    def __getitem__(self, index: int) -> RegionBatch:
        """Micro-batch `index`."""
        rng = np.random.default_rng([self.seed, index])
        rows = np.searchsorted(self.sums, rng.random(self.batch_size)).clip(0, len(self.sums) - 1)
        return RegionBatch(self.descriptors[rows].float(), self.labels[rows])


class NameLosses(LossModule[RegionBatch]):
    """The recognition head of `tiny` on described regions.

    Args:
        model: its head is trained.
        text_embeddings: (K, S, text_dim) float, L2-normalized.
        noise: on descriptors.
    """

    text_embeddings: Tensor

    def __init__(self, model: OVSAM, text_embeddings: Tensor, noise: MapNoise) -> None:
        super().__init__()
        head = model.mask_decoder.roi_conv
        assert isinstance(head, TinyRegionHead)  # checked by the caller
        self.head, self.noise = head, noise
        self.parts = TrainedParts(model, [HEAD_PATH])
        self.logit_scale = model.config.logit_scale
        self.register_buffer("text_embeddings", text_embeddings, persistent=False)

    def trained_parts(self) -> nn.Module:
        """The head, under its keys in the model."""
        return self.parts

    def forward(self, batch: RegionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """`class`."""
        disturbed = disturb_descriptors(batch.descriptors, self.noise, generator)
        logits = compute_class_logits(self.head(disturbed), self.text_embeddings, self.logit_scale)
        return {"class": classification_loss(logits, batch.labels)}


def disturb_descriptors(
    descriptors: Tensor, options: MapNoise, generator: torch.Generator
) -> Tensor:
    """(R, C) descriptors with noise and dropped values, anew for every region and pass."""
    device, size = descriptors.device, descriptors.shape
    strength, share = torch.rand(2, size[0], 1, generator=generator, device=device)
    share = share * options.dropout
    noise = (
        options.noise * strength.square() * torch.randn(size, generator=generator, device=device)
    )
    gain = 1 + options.gain * strength * torch.randn(size, generator=generator, device=device)
    is_kept = torch.rand(size, generator=generator, device=device) >= share
    disturbed = (descriptors * gain + descriptors.std(dim=0) * noise) * is_kept / (1 - share)
    return torch.as_tensor(disturbed)
