"""Which images go together, and one image read for the model; no torch.

Windows and batches are cut from all images of a run, never from those that are left: a run that
was stopped and goes on computes the same batches, hence the same numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np

from ovsam_cli.errors import ImageError
from ovsam_cli.images import read_image, resize_to_input
from ovsam_cli.raster import RgbArray
from ovsam_cli.structures import ImageGeometry, ImageRecord, ImageResult, Prompts

# Finds the prompts of one image, with the notices that go into its result.
FindPrompts = Callable[[ImageRecord, tuple[int, int]], tuple[Prompts, tuple[str, ...]]]
# Numba is loaded in a second, and takes 120 MiB; it saves 5 to 20 core-ms an image.
IMAGES_TO_COMPILE_FOR = 100
WINDOW = 512  # images among which similar ones are brought together


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How a model wants its images: side in pixels, RGB mean and deviation (0..255 units)."""

    model_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How images are read.

    Attributes:
        pixel_format: what the model wants.
        exif: whether photos are turned upright by their tag.
        find_prompts: None in grid mode.
        keeps_rgb: whether an image is needed at its own size after resizing.
        compiled: resize with Numba, which must be installed; same pixels.
    """

    pixel_format: PixelFormat
    exif: Literal["apply", "ignore"]
    find_prompts: FindPrompts | None
    keeps_rgb: Callable[[ImageRecord], bool] = lambda record: False
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One image read and resized, with its prompts.

    Attributes:
        record: which image.
        input_rgb: (h, w, 3) uint8, input frame.
        geometry: the frames of this image.
        prompts: in the original frame, all of image index 0; None in grid mode.
        rgb: (H, W, 3) uint8, original frame; None where nobody needs it.
        exif_orientation: the file's EXIF tag, 1 when absent.
        warnings: what was noticed while reading.
    """

    record: ImageRecord
    input_rgb: RgbArray
    geometry: ImageGeometry
    prompts: Prompts | None
    rgb: RgbArray | None
    exif_orientation: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Several prepared images as one step of the model.

    Attributes:
        images: I prepared images.
        prompts: B prompts of all images; `image_index` says whose.
    """

    images: tuple[PreparedImage, ...]
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
        return ImageBatch(tuple(images), Prompts.concatenate(prompts))


def plan_batches(
    records: Sequence[ImageRecord],
    count_prompts: Callable[[ImageRecord], int],
    *,
    batch_size: int,
    window: int = WINDOW,
) -> Iterator[tuple[ImageRecord, ...]]:
    """Cut all images of a run into batches of similar numbers of prompts.

    In each window of consecutive images those with most prompts come first, so that too little
    memory shows at once; equals keep their order.

    Args:
        records: all images of the run, finished ones included.
        count_prompts: how many prompts an image has in the prompt file.
        batch_size: images a batch; a window's last one may have fewer.
        window: consecutive images that are sorted together.
    """
    for start in range(0, len(records), window):
        ordered = sorted(records[start : start + window], key=count_prompts, reverse=True)
        for first in range(0, len(ordered), batch_size):
            yield tuple(ordered[first : first + batch_size])


def iter_unfinished(
    batches: Iterable[tuple[ImageRecord, ...]], finished: frozenset[str]
) -> Iterator[tuple[ImageRecord, ...]]:
    """The batches that miss an image, whole: a part of a batch would give other last bits."""
    for batch in batches:
        if not all(record.file_name in finished for record in batch):
            yield batch


def is_compiling_worthwhile(num_images: int) -> bool:
    """Whether a run reads enough images for `ReadOptions.compiled`, and Numba is installed."""
    return num_images >= IMAGES_TO_COMPILE_FOR and find_spec("numba") is not None


def prepare_image(
    record: ImageRecord, options: ReadOptions, *, buffer: RgbArray | None = None
) -> PreparedImage | ImageResult:
    """Read one image for the model; a bad one becomes a failed result, never an exception.

    Args:
        record: which image.
        options: how to read it.
        buffer: (S * S * 3,) uint8 that the resized image is written to; None for memory of its own.
    """
    try:
        image = read_image(record.path, apply_exif=options.exif == "apply")
        resized, geometry = resize_to_input(
            image.rgb, options.pixel_format.model_size, compiled=options.compiled
        )
    except ImageError as error:
        return ImageResult(record, "failed", reason=error.reason, message=str(error))
    except MemoryError:
        message = f"{record.path}: not enough memory to resize it"
        return ImageResult(record, "failed", reason="out_of_memory", message=message)
    if buffer is not None:
        place = buffer[: resized.size].reshape(resized.shape)
        np.copyto(place, resized)
        resized = place
    prompts: Prompts | None = None
    notices: tuple[str, ...] = ()
    if options.find_prompts is not None:
        prompts, notices = options.find_prompts(record, geometry.original_hw)
    return PreparedImage(
        record=record,
        input_rgb=resized,
        geometry=geometry,
        prompts=prompts,
        rgb=image.rgb if options.keeps_rgb(record) else None,
        exif_orientation=image.exif_orientation,
        warnings=image.warnings + notices,
    )
