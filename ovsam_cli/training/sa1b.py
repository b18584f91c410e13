"""SA-1B folders as a training set: masks without classes, read one image at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.run_lengths import read_segmentation
from ovsam_cli.training.instance_sets import NO_LABEL, LabeledImage

IMAGE_PATTERN = "sa_*.jpg"


class Sa1bSet:
    """Images `sa_*.jpg` of a folder and its folders, each with its masks in `sa_*.json`.

    Args:
        folder: of SA-1B, or one of its `sa_000000` folders.

    Raises:
        InputError: no such images, or one without its masks.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(str(path) for path in folder.rglob(IMAGE_PATTERN))
        if not self.paths:
            raise InputError(f"{folder}: no {IMAGE_PATTERN} in it or its folders")
        masks = {str(path) for path in folder.rglob("sa_*.json")}
        missing = [path for path in self.paths if str(_masks_of(Path(path))) not in masks]
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of {len(self.paths)} images have no masks; the first "
                f"were expected at {_masks_of(Path(missing[0]))}"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def path(self, number: int) -> Path:
        """Of image `number`."""
        return Path(self.paths[number])

    def read(self, number: int) -> LabeledImage:
        """Image `number` with its masks, none of which has a class.

        Raises:
            ImageError: its masks cannot be read.
        """
        path = self.path(number)
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


def _masks_of(path: Path) -> Path:
    return path.with_suffix(".json")
