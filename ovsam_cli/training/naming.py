"""Names alone: regions described once by frozen parts, then a head trained on them many times.

A view costs the trunk, a region next to nothing; the head needs hundreds of thousands of passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import compute_class_logits
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.tiny_regions import TinyRegionHead, describe_regions
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.training.batches import BatchSource, LossModule, SkippedImage
from ovsam_cli.training.clip2sam import MapNoise, TrainedParts
from ovsam_cli.training.instance_batches import InstanceBatch
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


def describe_batches(
    model: OVSAM,
    source: BatchSource[InstanceBatch],
    count: int,
    folder: Path,
    on_batch_done: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Describe the regions of the first micro-batches; those that `folder` has are read.

    Args:
        model: trunk and FPN are used.
        source: of micro-batches with regions.
        count: micro-batches.
        folder: one file a micro-batch.
        on_batch_done: called with the number done.

    Returns:
        (n, DESCRIPTOR_SIZE) float16 descriptors and (n,) int64 labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for index in range(count):
        path = folder / f"{index:06d}.pt"
        if not path.exists():
            with write_whole_file(path) as file:
                torch.save(_describe(model, source[index]), file)
        found.append(torch.load(path, weights_only=True))
        if on_batch_done is not None:
            on_batch_done(index + 1)
    return torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])


def _describe(model: OVSAM, batch: InstanceBatch) -> tuple[Tensor, Tensor]:
    regions = batch.regions
    assert regions is not None  # the recipe asks for them
    with torch.inference_mode():
        levels = model.fpn_neck(model.backbone(batch.pixels))
        found = describe_regions(levels, regions.boxes_xyxy, regions.image_index)
    return found.half().clone(), regions.labels
