"""Which images are left, read ahead and put together in batches; no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ovsam_cli.errors import ImageError
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.structures import FloatArray, ImageGeometry, ImageRecord, ImageResult, Prompts

# Finds the prompts of one image, with the notices that go into its result.
FindPrompts = Callable[[ImageRecord, tuple[int, int]], tuple[Prompts, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How a model wants its images: side in pixels, RGB mean and deviation (0..255 units)."""

    model_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One image read, resized and normalized, with its prompts.

    Attributes:
        record: which image.
        rgb: (H, W, 3) uint8, original frame.
        exif_orientation: the file's EXIF tag, 1 when absent.
        pixels: (3, S, S) float32, padded model frame.
        geometry: the frames of this image.
        prompts: in the original frame, all of image index 0; None in grid mode.
        warnings: what was noticed while reading.
    """

    record: ImageRecord
    rgb: np.ndarray
    exif_orientation: int
    pixels: FloatArray
    geometry: ImageGeometry
    prompts: Prompts | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Several prepared images as one step of the model.

    Attributes:
        images: I prepared images.
        pixels: (I, 3, S, S) float32, padded model frame.
        prompts: B prompts of all images; `image_index` says whose.
    """

    images: tuple[PreparedImage, ...]
    pixels: FloatArray
    prompts: Prompts

    def __len__(self) -> int:
        return len(self.images)

    @property
    def geometries(self) -> tuple[ImageGeometry, ...]:
        """The frames of the I images."""
        return tuple(image.geometry for image in self.images)

    @staticmethod
    def of(images: Sequence[PreparedImage]) -> ImageBatch:
        """Join prepared images; their prompts are renumbered to their place in the batch."""
        prompts = [
            image.prompts.with_image_index(index)
            for index, image in enumerate(images)
            if image.prompts is not None
        ]
        return ImageBatch(
            tuple(images), np.stack([i.pixels for i in images]), Prompts.concatenate(prompts)
        )


def prepare_image(
    record: ImageRecord,
    *,
    pixel_format: PixelFormat,
    exif: Literal["apply", "ignore"],
    find_prompts: FindPrompts | None,
) -> PreparedImage | ImageResult:
    """Read one image for the model; a bad one becomes a failed result, never an exception."""
    try:
        image = read_image(record.path, apply_exif=exif == "apply")
    except ImageError as error:
        return ImageResult(record, "failed", reason=error.reason, message=str(error))
    pixels, geometry = preprocess(
        image.rgb,
        model_size=pixel_format.model_size,
        mean=pixel_format.mean,
        std=pixel_format.std,
    )
    prompts: Prompts | None = None
    notices: tuple[str, ...] = ()
    if find_prompts is not None:
        prompts, notices = find_prompts(record, geometry.original_hw)
    return PreparedImage(
        record=record,
        rgb=image.rgb,
        exif_orientation=image.exif_orientation,
        pixels=pixels,
        geometry=geometry,
        prompts=prompts,
        warnings=image.warnings + notices,
    )


def iter_prepared(
    records: Iterable[ImageRecord],
    prepare: Callable[[ImageRecord], PreparedImage | ImageResult],
    *,
    num_ahead: int,
) -> Iterator[PreparedImage | ImageResult]:
    """Prepare images in a thread, at most `num_ahead` before they are asked for, in order."""
    waiting: deque[Future[PreparedImage | ImageResult]] = deque()
    with ThreadPoolExecutor(max_workers=1) as reader:
        try:
            for record in records:
                waiting.append(reader.submit(prepare, record))
                if len(waiting) > num_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # an interrupted run must not read on
            for future in waiting:
                future.cancel()


def iter_batches(
    prepared: Iterable[PreparedImage | ImageResult], *, batch_size: int
) -> Iterator[ImageBatch | ImageResult]:
    """Group prepared images; failed ones pass through at once."""
    images: list[PreparedImage] = []
    for item in prepared:
        if isinstance(item, ImageResult):
            yield item
            continue
        images.append(item)
        if len(images) == batch_size:
            yield ImageBatch.of(images)
            images = []
    if images:
        yield ImageBatch.of(images)
