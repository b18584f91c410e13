"""Micro-batches of SAM2CLIP: images and the teacher's cached features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.training.batches import SkippedImage
from ovsam_cli.training.teacher_cache import TeacherCache
from ovsam_cli.training.teacher_images import TeacherImage, TeacherImages

MAX_TRIES = 1000  # unreadable images one after the other


@dataclass(frozen=True, slots=True, eq=False)
class DistillBatch:
    """Images and what the teacher says of them.

    Attributes:
        pixels: (I, 3, S, S) float32, normalized, padded right and bottom.
        teacher_embeddings: (I, D, h, w) floating, as stored; None with a live teacher.
        skipped: images that could not be read and were replaced.
    """

    pixels: Tensor
    teacher_embeddings: Tensor | None
    skipped: tuple[SkippedImage, ...] = ()

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.pixels)

    def to(self, device: torch.device) -> Self:
        """The same with its tensors on `device`."""
        embeddings = self.teacher_embeddings
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=True),
            teacher_embeddings=embeddings
            if embeddings is None
            else embeddings.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Self:
        """The same in page-locked memory, for the loader."""
        embeddings = self.teacher_embeddings
        return replace(
            self,
            pixels=self.pixels.pin_memory(),
            teacher_embeddings=None if embeddings is None else embeddings.pin_memory(),
        )


class DistillSource:
    """Micro-batches of images in an order that is drawn anew for each epoch.

    Args:
        images: to learn from.
        config: of the student: size of the frame and statistics of the pixels.
        images_per_batch: I.
        seed: of the orders.
        cache: the teacher's features; None with a live teacher.
    """

    def __init__(
        self,
        images: TeacherImages,
        config: OVSAMConfig,
        *,
        images_per_batch: int,
        seed: int,
        cache: TeacherCache | None,
    ) -> None:
        self.images = images
        self.config = config
        self.images_per_batch = images_per_batch
        self.seed = seed
        self.cache = cache
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, index: int) -> DistillBatch:
        """Micro-batch `index`; an image that cannot be read gives way to the next one.

        Raises:
            InputError: no image can be read, or cached features are of another teacher.
        """
        skipped: list[SkippedImage] = []
        first = index * self.images_per_batch
        found = [self._load(first + row, skipped) for row in range(self.images_per_batch)]
        features = [one for _, one in found if one is not None]
        return DistillBatch(
            pixels=torch.stack([pixels for pixels, _ in found]),
            teacher_embeddings=torch.stack(features) if features else None,
            skipped=tuple(skipped),
        )

    def _load(self, number: int, skipped: list[SkippedImage]) -> tuple[Tensor, Tensor | None]:
        """Pixels and features of the first readable image from the `number`-th of all epochs."""
        for later in range(min(len(self.images), MAX_TRIES)):
            image = self._pick(number + later)
            try:
                return self._read(image)
            except ImageError as error:
                skipped.append(SkippedImage(image.path, str(error)))
        raise InputError(
            f"{self.images.folder}: no image can be read, the last failure: {skipped[-1].reason}"
        )

    def _pick(self, number: int) -> TeacherImage:
        epoch, place = divmod(number, len(self.images))
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self.images))
        return self.images[int(self._order[place])]

    def _read(self, image: TeacherImage) -> tuple[Tensor, Tensor | None]:
        features = None
        if self.cache is not None:
            features = self.cache.read(image)
            if features is None:
                message = f"{image.path}: its features have gone from {self.cache.folder}"
                raise ImageError(message, reason="not_found")
        pixels, _ = preprocess(
            read_image(image.path).rgb,
            model_size=self.config.model_size,
            mean=self.config.pixel_mean,
            std=self.config.pixel_std,
        )
        return torch.from_numpy(pixels), features
