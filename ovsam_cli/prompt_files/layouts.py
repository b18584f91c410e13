"""The layouts prompts come in: our own JSON and JSON Lines, COCO datasets and COCO results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.prompt_files.json_stream import JsonFileError, JsonStream, open_json
from ovsam_cli.prompt_files.table import PromptTable, TableBuilder
from ovsam_cli.remote import open_location

LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
_HEADER_KEYS = frozenset({"format", "coordinates", "images"})
_ENTRY_KEYS = frozenset({"prompts", "boxes", "points"})
_COCO_IMAGE_KEYS = ("file_name", "width", "height")
_IMAGE_KEYS = _ENTRY_KEYS | {"file_name", "width", "height"}


def read_prompt_table(path: Path | str, dataset: Path | str | None = None) -> PromptTable:
    """Read a prompt file of any layout, entry by entry.

    Args:
        path: our JSON or JSON Lines, a COCO dataset or a COCO results list.
        dataset: COCO dataset that names the images of a results list.

    Raises:
        InputError: unreadable, malformed or of no known layout; names file and place.
    """
    digest = hashlib.sha256()
    builder = TableBuilder(path)
    if dataset is None and Path(path).suffix.lower() in LINES_SUFFIXES:
        _add_lines(builder, _iter_lines(path, digest.update))
        return builder.finish(digest.hexdigest())
    with _opened(builder) as stream:
        stream.hash_into(digest.update)
        if dataset is None:
            _add_document(builder, stream)
        else:
            other = TableBuilder(dataset)  # only its error messages are used
            with _opened(other) as dataset_stream:
                dataset_stream.hash_into(digest.update)
                _check_kind(other, dataset_stream, "{")
                images = _index_images(other, dataset_stream)
            _check_kind(builder, stream, "[")
            _add_results(builder, stream.iter_items(), images)
    return builder.finish(digest.hexdigest())


@contextmanager
def _opened(builder: TableBuilder) -> Iterator[JsonStream]:
    try:
        with open_json(builder.path) as stream:
            yield stream
    except JsonFileError as error:
        message = f"not valid JSON: {error} (column {error.column})"
        raise builder.error(str(error.line), message) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise builder.error("", f"not valid JSON: {error}") from error
    except OSError as error:
        message = f"{builder.path}: cannot read the prompts: {error.strerror or error}"
        raise InputError(message) from error


def _check_kind(builder: TableBuilder, stream: JsonStream, first: str) -> None:
    """Raise InputError for a document that is not JSON, or neither list nor object as wanted."""
    stream.walk()
    if stream.peek() != first:
        value = stream.take()
        builder.as_list(value, "") if first == "[" else builder.as_object(value, "")


def _iter_lines(path: Path | str, update: Callable[[bytes], None]) -> Iterator[bytes]:
    try:
        with open_location(path) as file:
            for line in file:
                update(line)
                yield line
    except OSError as error:
        message = f"{path}: cannot read the prompts: {error.strerror or error}"
        raise InputError(message) from error


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


def _add_document(builder: TableBuilder, stream: JsonStream) -> None:
    content = stream.walk()
    if stream.peek() == "[":
        items = stream.iter_items()
        first = next(items, None)
        items = items if first is None else chain([first], items)
        if isinstance(first, dict) and "bbox" in first:
            _add_results(builder, items, None)
        else:
            _add_listed_images(builder, items, "")
    elif stream.peek() != "{":
        builder.as_object(stream.take(), "")
    elif "annotations" in content:
        _add_dataset(builder, stream)
    elif content.keys() & _HEADER_KEYS:
        builder.check_keys(content, _HEADER_KEYS, "")
        builder.set_header(content, "")
        _go_to(builder, stream, "images")
        _add_images(builder, stream, "images")
    else:
        _add_images(builder, stream, "")


def _go_to(builder: TableBuilder, stream: JsonStream, wanted: str) -> None:
    """Bring a document to the value of one of its keys.

    Raises:
        InputError: it has no such key.
    """
    stream.rewind()
    for key in stream.iter_keys():
        if key == wanted:
            return
        stream.skip()
    builder.as_list(None, wanted)


def _iter_list(builder: TableBuilder, stream: JsonStream, key: str) -> Iterator[object]:
    """The items of the list under a key of a document."""
    _go_to(builder, stream, key)
    if stream.peek() != "[":
        builder.as_list(stream.take(), key)
    yield from stream.iter_items()


def _add_images(builder: TableBuilder, stream: JsonStream, where: str) -> None:
    """A list of image objects, or a mapping from file name to image object."""
    if stream.peek() == "{":
        for name in stream.iter_keys():
            place = f"{where}[{name!r}]"
            entry = builder.as_object(stream.take(), place)
            _add_image(builder, {"file_name": name, **entry}, place)
    elif stream.peek() == "[":
        _add_listed_images(builder, stream.iter_items(), where)
    else:
        builder.as_list(stream.take(), where)


def _add_listed_images(builder: TableBuilder, images: Iterable[object], where: str) -> None:
    for index, value in enumerate(images):
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


def _index_images(builder: TableBuilder, stream: JsonStream) -> dict[object, dict[str, object]]:
    """What is needed of the image objects of a COCO dataset, by id."""
    images: dict[object, dict[str, object]] = {}
    for index, value in enumerate(_iter_list(builder, stream, "images")):
        where = f"images[{index}]"
        entry = builder.as_object(value, where)
        image_id = entry.get("id")
        if type(image_id) is not int and not isinstance(image_id, str):
            raise builder.error(where, f"id is {image_id!r}, expected an integer")
        if image_id in images:
            raise builder.error(where, f"image id {image_id!r} stands twice")
        images[image_id] = {key: entry[key] for key in _COCO_IMAGE_KEYS if key in entry}
    return images


def _add_dataset(builder: TableBuilder, stream: JsonStream) -> None:
    """COCO ground truth: every annotation's box is a prompt with the annotation's id."""
    rows = {
        image_id: builder.image(entry.get("file_name"), f"images[{index}]", entry)
        for index, (image_id, entry) in enumerate(_index_images(builder, stream).items())
    }
    for index, value in enumerate(_iter_list(builder, stream, "annotations")):
        where = f"annotations[{index}]"
        entry = builder.as_object(value, where)
        image_id = entry.get("image_id")
        if not isinstance(image_id, int | str) or image_id not in rows:
            raise builder.error(where, f"image_id {image_id!r} is not among the images")
        _add_coco_box(builder, rows[image_id], entry, where)


def _add_results(
    builder: TableBuilder,
    results: Iterable[object],
    images: dict[object, dict[str, object]] | None,
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
