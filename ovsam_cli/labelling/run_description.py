"""What a run's folder says of itself, so that its results can be written in other forms later.

    OUT/.ovsam/description.json   categories, form and notices of its COCO file, its shard
    OUT/.ovsam/images.jsonl       its images, `[image_id, "file_name"]` a line, by image_id

Both are there from the start of a run. The manifest (`fingerprint.py`) holds its settings, the
journal its results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.labelling.shards import Shard
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.structures import ImageRecord

DESCRIPTION_FILE, IMAGES_FILE = "description.json", "images.jsonl"
DESCRIPTION_FORMAT = "ovsam-description-1"


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What a run's results mean.

    Attributes:
        categories: that its category ids stand for.
        coco: form of its COCO file.
        shard: which part of a run it is; None for a whole one.
        num_images: of this run or shard.
        images_sha256: of their ids and file names.
    """

    categories: tuple[CocoCategory, ...]
    coco: CocoOptions
    shard: Shard | None
    num_images: int
    images_sha256: str


def compute_images_hash(records: Iterable[ImageRecord]) -> str:
    """Hexadecimal sha256 of ids and file names, in their order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(_image_line(record))
    return digest.hexdigest()


def write_description(
    out: Path, description: RunDescription, records: Sequence[ImageRecord]
) -> None:
    """Write both files, unless they say the same already.

    Args:
        out: the run's folder, prepared and locked.
        description: with the hash and number of `records`.
        records: the run's images by image_id.

    Raises:
        OutputError: the folder cannot be written.
    """
    state = out / STATE_FOLDER
    content = json.dumps({"format": DESCRIPTION_FORMAT} | asdict(description), indent=1)
    path = state / DESCRIPTION_FILE
    if path.exists() and path.read_bytes() == content.encode() + b"\n":
        return
    # The description goes last: with its hash it says that the list is complete.
    with write_whole_file(state / IMAGES_FILE) as file:
        file.writelines(map(_image_line, records))
    with write_whole_file(path) as file:
        file.write(content.encode() + b"\n")


def read_description(out: Path) -> RunDescription:
    """Read what a run says of itself.

    Raises:
        InputError: the folder holds no run, or one of another version.
    """
    path = out / STATE_FOLDER / DESCRIPTION_FILE
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != DESCRIPTION_FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {DESCRIPTION_FORMAT!r}")
        return RunDescription(
            categories=tuple(CocoCategory(**fields) for fields in content["categories"]),
            coco=CocoOptions(**content["coco"]),
            shard=None if content["shard"] is None else Shard(**content["shard"]),
            num_images=int(content["num_images"]),
            images_sha256=str(content["images_sha256"]),
        )
    except FileNotFoundError as error:
        raise InputError(
            f"{out}: holds no run of ovsam, or one that never came to its first image; give the "
            "--out folder of `ovsam label`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); run the run's own command again, which writes it"
        ) from error


def iter_images(out: Path) -> Iterator[tuple[int, str]]:
    """Ids and file names of a run's images, by image_id.

    Raises:
        InputError: the list is missing or damaged.
    """
    path = out / STATE_FOLDER / IMAGES_FILE
    try:
        with open(path, "rb") as file:
            for line in file:
                image_id, file_name = json.loads(line)
                yield int(image_id), str(file_name)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); run the run's own command again, which writes it"
        ) from error


def _image_line(record: ImageRecord) -> bytes:
    return json.dumps([record.image_id, record.file_name]).encode("ascii") + b"\n"
