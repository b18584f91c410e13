"""Our files, made once, and a record of what each consumer made of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from export_builders import CATEGORIES, write_images
from interop_records import Record, write_all

from ovsam_cli.outputs.coco import CocoOptions, CocoWriter
from ovsam_cli.structures import ImageResult

REPORT = "OVSAM_INTEROP_REPORT"  # the file that `make interop` makes its table of


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ImageResult]]:
    """Folder of the images, and their results."""
    folder = tmp_path_factory.mktemp("photos")
    return folder, write_images(folder)


@pytest.fixture(scope="session")
def coco_files(
    photos: tuple[Path, list[ImageResult]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A COCO file of each mask form."""
    folder, found = tmp_path_factory.mktemp("coco"), {}
    for form in ("rle", "rle-uncompressed", "polygon"):
        found[form] = folder / f"{form}.json"
        options = CocoOptions(masks=form)
        with CocoWriter(found[form], categories=CATEGORIES, options=options) as coco:
            write_all(coco, photos[1])
    return found


@pytest.fixture(scope="session")
def rows() -> Iterator[list[dict[str, object]]]:
    """Lines of the table; written when all tests are done."""
    found: list[dict[str, object]] = []
    yield found
    if REPORT in os.environ:
        Path(os.environ[REPORT]).write_text(json.dumps(found, indent=1))


@pytest.fixture
def record(rows: list[dict[str, object]]) -> Record:
    """`record(package, form, what, lowest_iou)` notes what a consumer was seen to do.

    The IoU is None where no masks were compared.
    """

    def note(package: str, form: str, what: str, lowest_iou: float | None) -> None:
        rows.append(
            {
                "package": package,
                "version": version(package),
                "form": form,
                "what": what,
                "lowest_iou": lowest_iou,
            }
        )

    return note
