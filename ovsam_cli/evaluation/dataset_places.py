"""Where a data set's annotations and images are: the layouts of COCO, LVIS and SA-1B; no torch."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.structures import ImageRecord

ROOT = Path("data")
# Annotations within a data set's folder, and the folder of its images.
LAYOUTS = (
    ("annotations/instances_val2017.json", "val2017"),
    ("annotations/lvis_v1_val.json", "."),
    ("lvis_v1_val.json", "."),
    ("instances.json", "images"),
)
NAMED = {
    "coco": ("coco/annotations/instances_val2017.json", "coco/val2017"),
    "lvis": ("lvis/annotations/lvis_v1_val.json", "coco"),
}
SA1B_PATTERN = "sa_*.json"


@dataclass(frozen=True, slots=True)
class DatasetPlace:
    """A data set on disk.

    Attributes:
        annotations: a COCO or LVIS file; of SA-1B its folder.
        images: folder of the images; for LVIS the one that holds train2017 and val2017.
        is_sa1b: masks stand beside the images.
    """

    annotations: Path
    images: Path
    is_sa1b: bool = False


def find_dataset(dataset: str, images: Path | None = None) -> DatasetPlace:
    """Find a data set.

    Args:
        dataset: a COCO or LVIS file; a folder in a known layout; `coco` or `lvis` for those below
            `data/`; or a folder of SA-1B.
        images: folder of the images; None where the layout says it.

    Raises:
        InputError: it is not there; names the paths that were looked for.
    """
    path = Path(dataset)
    if dataset in NAMED and not path.exists():
        annotations, folder = (ROOT / part for part in NAMED[dataset])
        return _require(DatasetPlace(annotations, images or folder))
    if path.is_dir():
        return _find_in_folder(path, images)
    if images is None:
        images = _guess_images(path)
    return _require(DatasetPlace(path, images))


def check_images(records: Sequence[ImageRecord], source: str) -> None:
    """Make sure that every image of a data set is there.

    Raises:
        InputError: as `check_paths`.
    """
    check_paths([record.path for record in records], source, "their folder by --images")


def check_paths(paths: Sequence[Path | str], source: str, hint: str) -> None:
    """Make sure that every image is there; folders are listed, not files asked for.

    Args:
        paths: of the images.
        source: the file that names them.
        hint: what else to give, in words.

    Raises:
        InputError: naming how many are missing, the first one and where it was looked for.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        by_folder[folder].append(name)
    missing = []
    for folder, names in by_folder.items():
        try:
            there = set(os.listdir(folder))
        except OSError:
            there = set()
        missing += [os.path.join(folder, name) for name in names if name not in there]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {len(paths)} images are missing; the first was "
            f"expected at {missing[0]}; put the images there, or give {hint}"
        )


def _find_in_folder(folder: Path, images: Path | None) -> DatasetPlace:
    for file, image_folder in LAYOUTS:
        if (folder / file).is_file():
            return _require(DatasetPlace(folder / file, images or folder / image_folder))
    if next(folder.rglob(SA1B_PATTERN), None) is not None:
        return DatasetPlace(folder, folder, is_sa1b=True)
    wanted = ", ".join(str(folder / file) for file, _ in LAYOUTS)
    raise InputError(
        f"{folder}: no annotations in it; looked for {wanted}, and {SA1B_PATTERN} of SA-1B; "
        "give the annotation file itself, and its images by --images"
    )


def _guess_images(annotations: Path) -> Path:
    """Of `X/annotations/instances_val2017.json` it is `X/val2017`; of `X/instances.json` images."""
    beside = annotations.parent
    for folder in (beside / "images", beside.parent / annotations.stem.rpartition("_")[2]):
        if folder.is_dir():
            return folder
    if not annotations.exists():
        return beside  # the missing file is what has to be said
    raise InputError(
        f"{annotations}: whose images are to be evaluated? Give their folder by --images"
    )


def _require(place: DatasetPlace) -> DatasetPlace:
    if not place.annotations.is_file():
        raise InputError(
            f"{place.annotations}: no such file; put the annotations there, or give the path of "
            "the COCO or LVIS file"
        )
    if not place.images.is_dir():
        raise InputError(
            f"{place.images}: no such folder, the images of {place.annotations} were expected "
            "there; give their folder by --images"
        )
    return place
