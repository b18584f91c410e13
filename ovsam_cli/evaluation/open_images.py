"""Annotated images, read ahead and handed over in batches."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from ovsam_cli.errors import ImageError
from ovsam_cli.evaluation.datasets import Instance, InstanceImage
from ovsam_cli.evaluation.instance_store import InstanceSource
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.labelling.reading import count_readers
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.raster import RgbArray
from ovsam_cli.structures import FloatArray, ImageGeometry, ImageRecord

BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class OpenImage:
    """An annotated image, read and ready for the model.

    Attributes:
        image: with its objects.
        rgb: (H, W, 3) uint8, original frame.
        pixels: (3, S, S) float32, padded model frame.
        geometry: the frames.
    """

    image: InstanceImage
    rgb: RgbArray
    pixels: FloatArray
    geometry: ImageGeometry

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Its objects."""
        return self.image.instances


@dataclass(frozen=True, slots=True)
class Target:
    """An object that is asked about, and the number of its image in the batch."""

    image: int
    instance: Instance


def split_by_image(targets: Sequence[Target]) -> Iterator[tuple[int, slice]]:
    """Number of each image, and which of the targets are its; they stand together."""
    start = 0
    for image, group in itertools.groupby(targets, key=lambda one: one.image):
        end = start + len([*group])
        yield image, slice(start, end)
        start = end


Opened = tuple[ImageRecord, OpenImage | ImageError]


def iter_opened(
    source: InstanceSource, rows: Sequence[int], labeller: Labeller, num_images: int
) -> Generator[list[Opened]]:
    """Read images in batches; the next batches are read meanwhile.

    A row's batch depends on its place among all, not on what else is left, so that an evaluation
    that goes on asks as the undisturbed one.

    Args:
        source: of the images.
        rows: the places that are wanted, rising.
        labeller: whose pixels they become.
        num_images: of a batch.
    """

    lock = Lock()  # the source reads from one file

    def read(row: int) -> OpenImage | ImageError:
        try:
            with lock:
                image = source.load(row)
            return open_image(labeller, image)
        except ImageError as error:
            return error

    waiting: deque[list[tuple[ImageRecord, Future[OpenImage | ImageError]]]] = deque()
    num_readers = count_readers(labeller.device)
    with ThreadPoolExecutor(num_readers, thread_name_prefix="read") as reader:
        try:
            for _, batch in itertools.groupby(rows, key=lambda row: row // num_images):
                waiting.append([(source.records[row], reader.submit(read, row)) for row in batch])
                if len(waiting) > BATCHES_AHEAD:
                    yield [(record, one.result()) for record, one in waiting.popleft()]
            while waiting:
                yield [(record, one.result()) for record, one in waiting.popleft()]
        finally:
            reader.shutdown(wait=True, cancel_futures=True)


def open_image(labeller: Labeller, image: InstanceImage) -> OpenImage:
    """Read an image for the model.

    Raises:
        ImageError: it cannot be read, or has another size than its annotations say.
    """
    wanted = labeller.pixel_format
    rgb = read_image(Path(image.path)).rgb
    pixels, geometry = preprocess(
        rgb, model_size=wanted.model_size, mean=wanted.mean, std=wanted.std
    )
    if geometry.original_hw != image.original_hw:
        raise ImageError(
            f"{image.path}: {geometry.original_hw} pixels (height, width), but its annotations "
            f"are of {image.original_hw}; give the images that were annotated",
            reason="wrong_size",
        )
    return OpenImage(image, rgb, pixels, geometry)
