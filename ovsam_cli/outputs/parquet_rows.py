"""An `ImageResult` as one row of a Parquet table and back, without loss; the columns' types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from ovsam_cli import masks
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

if TYPE_CHECKING:
    import pyarrow as pa


class PromptRow(TypedDict):
    """A prompt in the form of a prompt file; pixels of the upright image."""

    points: list[list[float]]
    labels: list[int]
    box: list[float] | None
    mask: Rle | None
    score: float | None


class TopName(TypedDict):
    """A name and its probability."""

    name: str
    score: float


class ObjectRow(TypedDict):
    """One object of `annotations`."""

    prompt_id: str
    prompt_id_is_text: bool
    category_id: int
    category: str
    score: float
    margin: float
    stability_score: float
    predicted_iou: float | None
    bbox: list[float]
    area: int
    rle_counts: str
    topk: list[TopName]
    prompt: PromptRow


class RawNames(TypedDict):
    """File name and path as bytes, where they are no UTF-8."""

    file_name: bytes
    path: bytes


class ImageRow(TypedDict):
    """One image."""

    image_id: int
    file_name: str
    path: str
    raw_names: RawNames | None
    width: int
    height: int
    exif_orientation: int
    status: Status
    reason: str
    error: str
    warnings: list[str]
    annotations: list[ObjectRow]


def build_columns() -> list[tuple[str, pa.DataType]]:
    """Names and types of the columns, those of `ImageRow`."""
    import pyarrow as pa

    floats = pa.list_(pa.float32())
    rle = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    prompt = [
        *(("points", pa.list_(floats)), ("labels", pa.list_(pa.int8())), ("box", floats)),
        *(("mask", rle), ("score", pa.float32())),
    ]
    found = [
        *(("prompt_id", pa.string()), ("prompt_id_is_text", pa.bool_())),
        *(("category_id", pa.int64()), ("category", pa.string())),
        *(("score", pa.float32()), ("margin", pa.float32())),
        *(("stability_score", pa.float32()), ("predicted_iou", pa.float32())),
        *(("bbox", floats), ("area", pa.int64()), ("rle_counts", pa.string())),
        ("topk", pa.list_(pa.struct([("name", pa.string()), ("score", pa.float64())]))),
        ("prompt", pa.struct(prompt)),
    ]
    raw_names = pa.struct([("file_name", pa.binary()), ("path", pa.binary())])
    return [
        *(("image_id", pa.int64()), ("file_name", pa.string()), ("path", pa.string())),
        *(("raw_names", raw_names), ("width", pa.int32()), ("height", pa.int32())),
        *(("exif_orientation", pa.int8()), ("status", pa.string()), ("reason", pa.string())),
        *(("error", pa.string()), ("warnings", pa.list_(pa.string()))),
        ("annotations", pa.list_(pa.struct(found))),
    ]


def result_to_row(result: ImageResult, names: Mapping[int, str]) -> ImageRow:
    """A result as a row.

    Args:
        result: of any status.
        names: of the categories, by id.
    """
    record, found = result.record, result.detections
    height, width = result.original_hw
    path = str(record.path)
    return {
        "image_id": record.image_id,
        "file_name": _as_text(record.file_name),
        "path": _as_text(path),
        "raw_names": _raw_names(record.file_name, path),
        "width": width,
        "height": height,
        "exif_orientation": result.exif_orientation,
        "status": result.status,
        "reason": result.reason,
        "error": _as_text(result.message),
        "warnings": [_as_text(text) for text in result.warnings],
        "annotations": [] if found is None else _object_rows(found, names),
    }


def row_to_result(row: ImageRow) -> ImageResult:
    """What `result_to_row` made a row of; `image_index` of the prompts becomes 0."""
    raw, path, name = row["raw_names"], row["path"], row["file_name"]
    if raw is not None:
        path, name = (raw[key].decode("utf-8", "surrogateescape") for key in ("path", "file_name"))
    is_failed = row["status"] == "failed"
    original_hw = (row["height"], row["width"])
    return ImageResult(
        record=ImageRecord(parse_location(path), name, row["image_id"]),
        status=row["status"],
        original_hw=original_hw,
        exif_orientation=row["exif_orientation"],
        detections=None if is_failed else _detections(row["annotations"], original_hw),
        reason=row["reason"],
        message=row["error"],
        warnings=tuple(row["warnings"]),
    )


def _as_text(text: str) -> str:
    """Valid Unicode: bytes that are no UTF-8 become escapes, for reading only."""
    return text.encode("utf-8", "backslashreplace").decode()


def _raw_names(file_name: str, path: str) -> RawNames | None:
    if file_name == _as_text(file_name) and path == _as_text(path):
        return None
    encoded = [text.encode("utf-8", "surrogateescape") for text in (file_name, path)]
    return {"file_name": encoded[0], "path": encoded[1]}


def _object_rows(found: Detections, names: Mapping[int, str]) -> list[ObjectRow]:
    ious = found.iou_predictions
    return [
        {
            "prompt_id": str(prompt_id),
            "prompt_id_is_text": isinstance(prompt_id, str),
            "category_id": int(found.category_ids[row]),
            "category": names[int(found.category_ids[row])],
            "score": float(found.scores[row]),
            "margin": float(found.margins[row]),
            "stability_score": float(found.stability_scores[row]),
            "predicted_iou": None if ious is None else float(ious[row]),
            "bbox": masks.xyxy_to_xywh(found.boxes_xyxy[row]).tolist(),
            "area": int(found.areas[row]),
            "rle_counts": found.segmentations[row]["counts"],
            "topk": [{"name": name, "score": score} for name, score in found.topk[row]],
            "prompt": _prompt_row(found.prompts, row),
        }
        for row, prompt_id in enumerate(found.prompt_ids)
    ]


def _prompt_row(prompts: Prompts, row: int) -> PromptRow:
    is_point = prompts.point_labels[row] >= 0
    score = float(prompts.prompt_scores[row])
    return {
        "points": prompts.point_coords[row, is_point].tolist(),
        "labels": prompts.point_labels[row, is_point].tolist(),
        "box": prompts.boxes_xyxy[row].tolist() if prompts.has_box[row] else None,
        "mask": prompts.masks[row],
        "score": None if score != score else score,
    }


def _detections(rows: Sequence[ObjectRow], original_hw: tuple[int, int]) -> Detections:
    if not rows:
        return Detections.empty()
    ious = [row["predicted_iou"] for row in rows]
    prompt_ids = tuple(
        row["prompt_id"] if row["prompt_id_is_text"] else int(row["prompt_id"]) for row in rows
    )
    boxes_xywh = _floats([row["bbox"] for row in rows])
    return Detections(
        prompt_ids=prompt_ids,
        segmentations=tuple(Rle(size=list(original_hw), counts=r["rle_counts"]) for r in rows),
        # Edges of masks are whole numbers, which float32 adds without loss.
        boxes_xyxy=np.concatenate(
            [boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1
        ),
        areas=np.array([row["area"] for row in rows], np.int64),
        category_ids=np.array([row["category_id"] for row in rows], np.int64),
        scores=_floats([row["score"] for row in rows]),
        margins=_floats([row["margin"] for row in rows]),
        stability_scores=_floats([row["stability_score"] for row in rows]),
        topk=tuple(tuple((top["name"], top["score"]) for top in row["topk"]) for row in rows),
        prompts=Prompts.concatenate(
            [
                _prompts(prompt_id, r["prompt"])
                for prompt_id, r in zip(prompt_ids, rows, strict=True)
            ]
        ),
        iou_predictions=None if None in ious else _floats(ious),
    )


def _prompts(prompt_id: int | str, row: PromptRow) -> Prompts:
    """One prompt."""
    return Prompts(
        prompt_ids=(prompt_id,),
        image_index=np.zeros(1, np.int64),
        point_coords=_floats(row["points"]).reshape(1, -1, 2),
        point_labels=np.array(row["labels"], np.int64).reshape(1, -1),
        boxes_xyxy=_floats([row["box"] or [np.nan] * 4]),
        masks=(row["mask"],),
        prompt_scores=_floats([row["score"]]),
    )


def _floats(values: Sequence[object]) -> FloatArray:
    return np.array(values, np.float32)  # None becomes NaN
