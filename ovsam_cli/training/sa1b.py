"""SA-1B folders as a training set: masks without classes, read one image at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.run_lengths import read_segmentation
from ovsam_cli.training.instance_sets import NO_LABEL, LabeledImage
from ovsam_cli.training.teacher_images import (
    SA1B_LIST_NAME,
    TeacherImages,
    find_teacher_images,
    pack_images,
)

IMAGE_PATTERN = "sa_*.jpg"


class Sa1bSet:
    """Images `sa_*.jpg`, each with its masks in `sa_*.json` beside it.

    They are those of the folders that `train.txt` names; without that file, of the folder and of
    all in it.

    Args:
        folder: of SA-1B, or one of its `sa_000000` folders.

    Raises:
        InputError: no such images, none with masks, or `train.txt` names what is not there.
    """

    def __init__(self, folder: Path) -> None:
        if (folder / SA1B_LIST_NAME).is_file():
            self.images = find_teacher_images(folder)
        else:
            paths = sorted(folder.rglob(IMAGE_PATTERN), key=str)
            self.images = pack_images(folder, (one.relative_to(folder).as_posix() for one in paths))
        if not len(self.images):
            raise InputError(f"{folder}: no {IMAGE_PATTERN} in it or its folders")
        self.without_masks = _count_without_masks(self.images)
        if self.without_masks == len(self.images):
            raise InputError(
                f"{folder}: none of {len(self.images)} images has masks; those of the first were "
                f"expected at {_masks_of(self.path(0))}"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def path(self, number: int) -> Path:
        """Of image `number`."""
        return self.images[number].path

    def read(self, number: int) -> LabeledImage:
        """Image `number` with its masks, none of which has a class.

        Raises:
            ImageError: its masks are not there or cannot be read.
        """
        path = self.path(number)
        if not _masks_of(path).is_file():
            raise ImageError(
                f"{path}: no masks: {_masks_of(path).name} is not beside it", reason="no_masks"
            )
        try:
            content = json.loads(_masks_of(path).read_text(encoding="utf-8"))
            original_hw = (int(content["image"]["height"]), int(content["image"]["width"]))
            segmentations = tuple(
                read_segmentation(one["segmentation"]) for one in content["annotations"]
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(
                f"{path}: its masks in {_masks_of(path).name} cannot be read "
                f"({type(error).__name__}: {error})",
                reason="bad_masks",
            ) from error
        if any(tuple(one["size"]) != original_hw for one in segmentations):
            raise ImageError(f"{path}: masks of another size than the image", reason="wrong_size")
        labels = np.full(len(segmentations), NO_LABEL, np.int64)
        return LabeledImage(path, original_hw, segmentations, labels)


def _count_without_masks(images: TeacherImages) -> int:
    """Folders are listed, a file is not asked for: there can be millions."""
    count, folder, there = 0, Path(), set[str]()
    for number in range(len(images)):
        masks = _masks_of(images[number].path)
        if masks.parent != folder:
            folder, there = masks.parent, set(os.listdir(masks.parent))
        count += masks.name not in there
    return count


def _masks_of(path: Path) -> Path:
    return path.with_suffix(".json")
