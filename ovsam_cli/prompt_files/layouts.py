"""The layouts prompts come in: our own JSON and JSON Lines, COCO datasets and COCO results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.prompt_files.table import PromptTable, TableBuilder

LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
_HEADER_KEYS = frozenset({"format", "coordinates", "images"})
_ENTRY_KEYS = frozenset({"prompts", "boxes", "points"})
_IMAGE_KEYS = _ENTRY_KEYS | {"file_name", "width", "height"}


def read_prompt_table(path: Path, dataset: Path | None = None) -> PromptTable:
    """Read a prompt file of any layout; JSON Lines line by line.

    Args:
        path: our JSON or JSON Lines, a COCO dataset or a COCO results list.
        dataset: COCO dataset that names the images of a results list.

    Raises:
        InputError: unreadable, malformed or of no known layout; names file and place.
    """
    digest = hashlib.sha256()
    builder = TableBuilder(path)
    if dataset is not None:
        content, dataset_content = _read_bytes(path), _read_bytes(dataset)
        digest.update(content)
        digest.update(dataset_content)
        other = TableBuilder(dataset)  # only its error messages are used
        images = _index_images(other, other.as_object(other.parse(dataset_content, ""), ""))
        _add_results(builder, builder.as_list(builder.parse(content, ""), ""), images)
    elif path.suffix.lower() in LINES_SUFFIXES:
        _add_lines(builder, _iter_lines(path, digest.update))
    else:
        content = _read_bytes(path)
        digest.update(content)
        _add_document(builder, builder.parse(content, ""))
    return builder.finish(digest.hexdigest())


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the prompts: {error.strerror}") from error


def _iter_lines(path: Path, update: Callable[[bytes], None]) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for line in file:
                update(line)
                yield line
    except OSError as error:
        raise InputError(f"{path}: cannot read the prompts: {error.strerror}") from error


def _add_lines(builder: TableBuilder, lines: Iterator[bytes]) -> None:
    first = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = str(number)
        entry = builder.as_object(builder.parse(line, where), where)
        if first and "file_name" not in entry:
            builder.check_keys(entry, _HEADER_KEYS - {"images"}, where)
            builder.set_header(entry, where)
        else:
            _add_image(builder, entry, where)
        first = False


def _add_document(builder: TableBuilder, document: object) -> None:
    if isinstance(document, list):
        if document and isinstance(document[0], dict) and "bbox" in document[0]:
            _add_results(builder, document, None)
        else:
            _add_images(builder, document, "")
        return
    content = builder.as_object(document, "")
    if "annotations" in content:
        _add_dataset(builder, content)
    elif content.keys() & _HEADER_KEYS:
        builder.check_keys(content, _HEADER_KEYS, "")
        builder.set_header(content, "")
        _add_images(builder, content.get("images"), "images")
    else:
        _add_images(builder, content, "")


def _add_images(builder: TableBuilder, images: object, where: str) -> None:
    """A list of image objects, or a mapping from file name to image object."""
    if isinstance(images, dict):
        for name, value in images.items():
            place = f"{where}[{name!r}]"
            entry = builder.as_object(value, place)
            _add_image(builder, {"file_name": name, **entry}, place)
        return
    for index, value in enumerate(builder.as_list(images, where)):
        place = f"{where}[{index}]"
        _add_image(builder, builder.as_object(value, place), place)


def _add_image(builder: TableBuilder, entry: dict[str, object], where: str) -> None:
    builder.check_keys(entry, _IMAGE_KEYS, where)
    if not entry.keys() & _ENTRY_KEYS:
        raise builder.error(where, "an image needs 'prompts', 'boxes' or 'points'")
    row = builder.image(entry.get("file_name"), where, entry)
    for index, value in enumerate(builder.as_list(entry.get("prompts", []), where)):
        place = f"{where}.prompts[{index}]"
        builder.add_prompt(row, builder.as_object(value, place), place)
    for index, box in enumerate(builder.as_list(entry.get("boxes", []), where)):
        builder.add_prompt(row, {"box": box}, f"{where}.boxes[{index}]")
    for index, point in enumerate(builder.as_list(entry.get("points", []), where)):
        builder.add_prompt(row, {"points": [point]}, f"{where}.points[{index}]")


def _index_images(
    builder: TableBuilder, document: dict[str, object]
) -> dict[object, dict[str, object]]:
    """Image objects of a COCO dataset by id."""
    images: dict[object, dict[str, object]] = {}
    for index, value in enumerate(builder.as_list(document.get("images"), "images")):
        where = f"images[{index}]"
        entry = builder.as_object(value, where)
        image_id = entry.get("id")
        if type(image_id) is not int and not isinstance(image_id, str):
            raise builder.error(where, f"id is {image_id!r}, expected an integer")
        if image_id in images:
            raise builder.error(where, f"image id {image_id!r} stands twice")
        images[image_id] = entry
    return images


def _add_dataset(builder: TableBuilder, document: dict[str, object]) -> None:
    """COCO ground truth: every annotation's box is a prompt with the annotation's id."""
    images = _index_images(builder, document)
    rows = {
        image_id: builder.image(entry.get("file_name"), f"images[{index}]", entry)
        for index, (image_id, entry) in enumerate(images.items())
    }
    annotations = builder.as_list(document["annotations"], "annotations")
    for index, value in enumerate(annotations):
        where = f"annotations[{index}]"
        entry = builder.as_object(value, where)
        image_id = entry.get("image_id")
        if not isinstance(image_id, int | str) or image_id not in rows:
            raise builder.error(where, f"image_id {image_id!r} is not among the images")
        _add_coco_box(builder, rows[image_id], entry, where)


def _add_results(
    builder: TableBuilder, results: list[object], images: dict[object, dict[str, object]] | None
) -> None:
    """COCO results: rows with bbox and score; file names from the row or from `images`."""
    for index, value in enumerate(results):
        where = f"[{index}]"
        entry = builder.as_object(value, where)
        image_id = entry.get("image_id")
        image = entry
        if "file_name" not in entry:
            if images is None:
                raise builder.error(
                    where,
                    "a results list has no file names; give the dataset they belong to as "
                    f"--prompts {builder.path}:DATASET.json, or a file_name in each row",
                )
            if not isinstance(image_id, int | str) or image_id not in images:
                raise builder.error(where, f"image_id {image_id!r} is not in the dataset given")
            image = images[image_id]
        row = builder.image(image.get("file_name"), where, image)
        _add_coco_box(builder, row, {"id": index + 1, **entry}, where)


def _add_coco_box(builder: TableBuilder, row: int, entry: dict[str, object], where: str) -> None:
    bbox = entry.get("bbox")
    try:
        x, y, width, height = builder.as_list(bbox, f"{where}.bbox")
        box = [x, y, x + width, y + height]  # type: ignore[operator]
    except (TypeError, ValueError) as error:
        raise builder.error(f"{where}.bbox", f"{bbox!r} is not [x, y, width, height]") from error
    builder.add_prompt(row, {"id": entry.get("id"), "box": box, "score": entry.get("score")}, where)
