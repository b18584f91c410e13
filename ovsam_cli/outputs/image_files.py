"""Images of a data set that is exported: found, linked or copied beside their labels."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.files import output_error
from ovsam_cli.structures import ImageRecord

ImageMode = Literal["link", "copy", "none"]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where the images are, and how they get beside their labels.

    Attributes:
        mode: `link` makes symbolic links, `copy` copies the files, `none` leaves them where they
            are.
        root: folder that the file names are relative to; None takes the paths of the source.
    """

    mode: ImageMode = "link"
    root: Path | None = None

    def find(self, record: ImageRecord) -> Path:
        """The file of an image.

        Raises:
            InputError: there is none.
        """
        path = record.path if self.root is None else self.root / record.file_name
        if isinstance(path, str):
            raise InputError(
                f"{path}: exports take images from this machine only; give the folder of a copy by "
                "--image-root, or leave them out with --images none"
            )
        if not path.is_file():
            raise InputError(
                f"{path}: no such image; give the folder of the images by --image-root, or leave "
                "them out with --images none"
            )
        return path

    def place(self, record: ImageRecord, target: Path) -> None:
        """Put an image at `target`, whose folder is made.

        Raises:
            InputError: the image is not there.
            OutputError: the disk is full or gone.
        """
        if self.mode == "none":
            return
        path = self.find(record)
        make_folder(target.parent)
        try:
            if self.mode == "link":
                target.symlink_to(os.path.abspath(path))
            else:
                shutil.copyfile(path, target)
        except OSError as error:
            raise output_error(target, error) from error


def check_file_name(record: ImageRecord) -> PurePosixPath:
    """The image's name as a path that stays within a folder.

    Raises:
        InputError: it leads elsewhere. A COCO file may hold anything.
    """
    name = PurePosixPath(record.file_name)
    if name.is_absolute() or ".." in name.parts or not name.name or "\\" in record.file_name:
        raise InputError(
            f"image {record.image_id}: the file name {record.file_name!r} is no path within a "
            "folder; file names are relative to the folder of the images"
        )
    return name


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def write_small_file(path: Path, data: bytes) -> None:
    """Write one of many files of a folder that appears as a whole.

    Raises:
        OutputError: the disk is full or gone.
    """
    make_folder(path.parent)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise output_error(path, error) from error
