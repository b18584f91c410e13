"""An `ImageResult` as one JSON object and back, exactly.

Float32 values are written with the fewest digits that give the same float32 again, so a result read
from the journal equals the one that was written, and files made from either are the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal, NotRequired, TypeAlias, TypedDict

import numpy as np

from ovsam_cli.outputs.json_values import shortest_floats
from ovsam_cli.remote import parse_location
from ovsam_cli.structures import (
    Detections,
    FloatArray,
    ImageRecord,
    ImageResult,
    Prompts,
    Rle,
    Status,
)

PIECE_BYTES = 1 << 20  # a row of some hundred objects is shorter
_OBJECTS_AT_ONCE = 256
Nested: TypeAlias = "float | list[Nested] | None"


class PromptsRow(TypedDict):
    """`Prompts`, columns as lists; NaN is null."""

    prompt_ids: list[int | str]
    image_index: list[int]
    num_points: int
    point_coords: Nested
    point_labels: list[list[int]]
    boxes_xyxy: Nested
    masks: list[Rle | None]
    prompt_scores: Nested


class DetectionsRow(TypedDict):
    """`Detections`, columns as lists; without `iou_predictions` where the model has none."""

    prompt_ids: list[int | str]
    segmentations: list[Rle]
    boxes_xyxy: Nested
    areas: list[int]
    category_ids: list[int]
    scores: Nested
    margins: Nested
    stability_scores: Nested
    topk: list[list[tuple[str, float]]]
    prompts: PromptsRow
    iou_predictions: NotRequired[Nested]


class ResultRow(TypedDict):
    """`ImageResult`: what one journal line holds."""

    file_name: str
    image_id: int
    path: str
    status: Status
    original_hw: list[int]
    exif_orientation: int
    reason: str
    message: str
    warnings: list[str]
    detections: DetectionsRow | None


def result_to_json(result: ImageResult) -> bytes:
    """All of `iter_result_json`; raises what it raises."""
    return b"".join(iter_result_json(result))


def iter_result_json(result: ImageResult) -> Iterator[bytes]:
    """Write a result as one line of ASCII JSON, without the line's end.

    Returns:
        Pieces of about `PIECE_BYTES`, at least one: an image may have thousands of objects.

    Raises:
        ValueError: a score, margin, stability, predicted IoU or box is NaN or infinite: a fault
            of the program, which must not get into files.
    """
    record, found = result.record, result.detections
    row: ResultRow = {
        "file_name": record.file_name,
        "image_id": record.image_id,
        "path": str(record.path),
        "status": result.status,
        "original_hw": list(result.original_hw),
        "exif_orientation": result.exif_orientation,
        "reason": result.reason,
        "message": result.message,
        "warnings": list(result.warnings),
        "detections": None,
    }
    head = _dump(row)
    if found is None:
        yield head.encode("ascii")
        return
    texts = [head.removesuffix("null}")], _iter_texts(_detections_to_row(found)), ["}"]
    yield from _gather(chain.from_iterable(texts))


def _iter_texts(row: DetectionsRow) -> Iterator[str]:
    """The JSON of a row of columns, of a few objects at a time."""
    before = "{"
    for name, column in row.items():
        yield f'{before}"{name}":'
        if isinstance(column, list) and len(column) > _OBJECTS_AT_ONCE:
            for start in range(0, len(column), _OBJECTS_AT_ONCE):
                some = _dump(column[start : start + _OBJECTS_AT_ONCE])
                yield ("," if start else "[") + some[1:-1]
            yield "]"
        else:
            yield _dump(column)
        before = ","
    yield "}"


def _gather(texts: Iterable[str]) -> Iterator[bytes]:
    """Join texts to pieces of about `PIECE_BYTES`."""
    held, num_bytes = list[str](), 0
    for text in texts:
        held.append(text)
        num_bytes += len(text)
        if num_bytes >= PIECE_BYTES:
            yield "".join(held).encode("ascii")
            held, num_bytes = [], 0
    if held:
        yield "".join(held).encode("ascii")


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def result_from_json(line: bytes | str) -> ImageResult:
    """Read what `result_to_json` wrote.

    Raises:
        ValueError, KeyError: the line is not such a row.
    """
    row: ResultRow = json.loads(line)
    found = row["detections"]
    height, width = row["original_hw"]
    return ImageResult(
        record=ImageRecord(parse_location(row["path"]), row["file_name"], row["image_id"]),
        status=row["status"],
        original_hw=(height, width),
        exif_orientation=row["exif_orientation"],
        detections=None if found is None else _detections_from_row(found),
        reason=row["reason"],
        message=row["message"],
        warnings=tuple(row["warnings"]),
    )


def _detections_to_row(found: Detections) -> DetectionsRow:
    row: DetectionsRow = {
        "prompt_ids": list(found.prompt_ids),
        "segmentations": list(found.segmentations),
        "boxes_xyxy": _nested(found.boxes_xyxy, nan="refuse"),
        "areas": found.areas.tolist(),
        "category_ids": found.category_ids.tolist(),
        "scores": _nested(found.scores, nan="refuse"),
        "margins": _nested(found.margins, nan="refuse"),
        "stability_scores": _nested(found.stability_scores, nan="refuse"),
        "topk": [list(pairs) for pairs in found.topk],
        "prompts": _prompts_to_row(found.prompts),
    }
    if found.iou_predictions is not None:
        row["iou_predictions"] = _nested(found.iou_predictions, nan="refuse")
    return row


def _detections_from_row(row: DetectionsRow) -> Detections:
    return Detections(
        prompt_ids=tuple(row["prompt_ids"]),
        segmentations=tuple(row["segmentations"]),
        boxes_xyxy=_floats(row["boxes_xyxy"]).reshape(-1, 4),
        areas=np.asarray(row["areas"], np.int64),
        category_ids=np.asarray(row["category_ids"], np.int64),
        scores=_floats(row["scores"]),
        margins=_floats(row["margins"]),
        stability_scores=_floats(row["stability_scores"]),
        topk=tuple(tuple((name, score) for name, score in pairs) for pairs in row["topk"]),
        prompts=_prompts_from_row(row["prompts"]),
        iou_predictions=_floats(row["iou_predictions"]) if "iou_predictions" in row else None,
    )


def _prompts_to_row(prompts: Prompts) -> PromptsRow:
    return {
        "prompt_ids": list(prompts.prompt_ids),
        "image_index": prompts.image_index.tolist(),
        "num_points": prompts.point_coords.shape[1],
        "point_coords": _nested(prompts.point_coords, nan="null"),
        "point_labels": prompts.point_labels.tolist(),
        "boxes_xyxy": _nested(prompts.boxes_xyxy, nan="null"),
        "masks": list(prompts.masks),
        "prompt_scores": _nested(prompts.prompt_scores, nan="null"),
    }


def _prompts_from_row(row: PromptsRow) -> Prompts:
    count, num_points = len(row["prompt_ids"]), row["num_points"]
    return Prompts(
        prompt_ids=tuple(row["prompt_ids"]),
        image_index=np.asarray(row["image_index"], np.int64),
        point_coords=_floats(row["point_coords"]).reshape(count, num_points, 2),
        point_labels=np.asarray(row["point_labels"], np.int64).reshape(count, num_points),
        boxes_xyxy=_floats(row["boxes_xyxy"]).reshape(count, 4),
        masks=tuple(row["masks"]),
        prompt_scores=_floats(row["prompt_scores"]),
    )


def _nested(values: FloatArray, *, nan: Literal["null", "refuse"]) -> Nested:
    """Lists in the shape of `values`; the JSON writer refuses any NaN that is left."""
    if values.ndim > 1:
        return [_nested(part, nan=nan) for part in values]
    floats = shortest_floats(values)
    if nan == "refuse":
        return list(floats)
    return [None if value != value else value for value in floats]


def _floats(nested: Nested) -> FloatArray:
    return np.asarray(nested, np.float32)  # null becomes NaN
