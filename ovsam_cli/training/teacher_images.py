"""The images SAM2CLIP learns from: any folder, or one in the layout of SA-1B; and their pixels.

SA-1B comes as many folders of `sa_<number>.jpg`; its layout here is a file `train.txt` that
lists the folders to use, a line a folder, relative to its own place (spec 7.1).
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.image_paths import find_images
from ovsam_cli.images import preprocess, read_image

SA1B_LIST_NAME = "train.txt"
SA1B_LAYOUT = (
    f"the SA-1B layout is a file {SA1B_LIST_NAME} that names a folder a line, each with "
    "sa_<number>.jpg files, for instance sa_000000/sa_1.jpg"
)
# SAM's own statistics of RGB values 0..255; the resize is that of the published training (spec 2).
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
KeyArray = NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class TeacherImage:
    """One image to learn from.

    Attributes:
        path: the file.
        key: its path below the folder, POSIX, percent-encoded to plain ASCII; what its features
            are stored under.
    """

    path: Path
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class TeacherImages:
    """Images of one folder; 11 million of them take some 400 MB, and workers share that.

    Attributes:
        folder: all paths are below it.
        keys: (N,) percent-encoded ASCII, see `TeacherImage.key`.
    """

    folder: Path
    keys: KeyArray

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> TeacherImage:
        key = self.keys[position].decode()
        return TeacherImage(self.folder / os.fsdecode(unquote_to_bytes(key)), key)

    def sha256(self) -> str:
        """Hash of which images these are and in which order, wherever their folder is."""
        return hashlib.sha256(b"\n".join(self.keys.tolist())).hexdigest()

    def select(self, positions: NDArray[np.int64]) -> TeacherImages:
        """The images at these positions, in this order."""
        return TeacherImages(self.folder, self.keys[positions])


def find_teacher_images(folder: Path) -> TeacherImages:
    """List the images of a folder, recursively, or of the folders that its `train.txt` names.

    Raises:
        InputError: no such folder, no image in it, or `train.txt` names what is not there.
    """
    if not folder.is_dir():
        kind = "is a file, not" if folder.exists() else "does not exist; give"
        raise InputError(f"{folder}: {kind} a folder of images; {SA1B_LAYOUT}")
    if (folder / SA1B_LIST_NAME).is_file():
        names: list[str] = list(_iter_sa1b(folder))
    else:
        try:
            names = [record.file_name for record in find_images([str(folder)])]
        except InputError as error:
            raise InputError(
                f"{error}; there is no {SA1B_LIST_NAME} either: {SA1B_LAYOUT}"
            ) from error
    return pack_images(folder, names)


def pack_images(folder: Path, names: Iterable[str]) -> TeacherImages:
    """Images by their POSIX paths below a folder."""
    return TeacherImages(folder, np.array([_encode(name) for name in names], dtype=np.bytes_))


def _iter_sa1b(folder: Path) -> Iterator[str]:
    """POSIX paths below `folder` of the images of every listed folder."""
    list_path = folder / SA1B_LIST_NAME
    try:
        lines = os.fsdecode(list_path.read_bytes()).splitlines()
    except OSError as error:
        raise InputError(f"{list_path}: cannot be read: {error.strerror}") from error
    listed = [(number, line.strip().strip("/")) for number, line in enumerate(lines, start=1)]
    listed = [(number, name) for number, name in listed if name]
    if not listed:
        raise InputError(f"{list_path}: names no folder; {SA1B_LAYOUT}")
    seen: set[str] = set()
    for number, name in listed:
        if name in seen:
            continue
        seen.add(name)
        place = folder / name
        if not place.is_dir():
            raise InputError(f"{list_path}:{number}: {place} is no folder; {SA1B_LAYOUT}")
        found = sorted(_list_sa1b_images(place), key=lambda file: (len(file), file))
        if not found:
            raise InputError(f"{list_path}:{number}: no sa_*.jpg in {place}; {SA1B_LAYOUT}")
        yield from (f"{name}/{file}" for file in found)


def _list_sa1b_images(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("sa_") and entry.name.endswith(".jpg"):
                    yield entry.name
    except OSError as error:
        raise InputError(f"{folder}: cannot list the folder: {error.strerror}") from error


def _encode(name: str) -> bytes:
    return quote(os.fsencode(name), safe="/ ").encode("ascii")


@dataclass(frozen=True, slots=True, eq=False)
class ReadImage:
    """One image as read, or why not.

    Attributes:
        image: which.
        pixels: (3, S, S) float32, normalized and padded; None when it could not be read.
        reason: why not, in words.
    """

    image: TeacherImage
    pixels: Tensor | None
    reason: str = ""


def read_pixels(image: TeacherImage, model_size: int) -> ReadImage:
    """Read, resize and normalize an image as SAM's encoder wants it."""
    try:
        rgb = read_image(image.path).rgb
    except ImageError as error:
        return ReadImage(image, None, str(error))
    pixels, _ = preprocess(rgb, model_size=model_size, mean=PIXEL_MEAN, std=PIXEL_STD)
    return ReadImage(image, torch.from_numpy(pixels))


def iter_read_batches(
    images: TeacherImages, model_size: int, *, batch_size: int, num_threads: int
) -> Iterator[list[ReadImage]]:
    """Batches in order, read ahead by threads (decoding and resizing release Python's lock)."""
    ahead = 2 * batch_size + num_threads
    waiting: deque[Future[ReadImage]] = deque()
    batch: list[ReadImage] = []
    pool = ThreadPoolExecutor(num_threads)
    try:
        for position in range(len(images) + ahead):
            if position < len(images):
                waiting.append(pool.submit(read_pixels, images[position], model_size))
            if position >= ahead and waiting:
                batch.append(waiting.popleft().result())
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
