"""Results as the labelling stages make them, for tests of what is done with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ovsam_cli.structures import Detections, ImageRecord, ImageResult, Prompts, Rle


def encode(mask: np.ndarray) -> Rle:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def random_masks(generator: np.random.Generator, count: int, hw: tuple[int, int]) -> np.ndarray:
    """(count, H, W) bool ellipses, some cut by the frame; none empty."""
    height, width = hw
    rows, columns = np.mgrid[:height, :width]
    masks = []
    for _ in range(count):
        y, x = generator.uniform(0, height), generator.uniform(0, width)
        ry, rx = generator.uniform(2, max(3, height / 3)), generator.uniform(2, max(3, width / 3))
        mask = ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 <= 1
        mask[int(min(y, height - 1)), int(min(x, width - 1))] = True
        masks.append(mask)
    return np.stack(masks) if masks else np.zeros((0, height, width), bool)


def make_prompts(generator: np.random.Generator, count: int, hw: tuple[int, int]) -> Prompts:
    """Points, boxes, both, masks, numbered and named in turn."""
    height, width = hw
    boxes = np.sort(generator.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    boxes = (boxes * [width, height, width, height]).astype(np.float32)
    boxes[1::3] = np.nan
    labels = np.tile(np.array([1, -1]), (count, 1))
    labels[1::3] = [1, 0]
    scores = generator.uniform(0, 1, count).astype(np.float32)
    scores[::2] = np.nan
    return Prompts(
        prompt_ids=tuple(row if row % 2 else f"p{row}" for row in range(count)),
        image_index=np.zeros(count, np.int64),
        point_coords=generator.uniform(0, 1, (count, 2, 2)).astype(np.float32) * [width, height],
        point_labels=labels,
        boxes_xyxy=boxes,
        masks=tuple(
            encode(np.eye(height, width)) if row % 4 == 3 else None for row in range(count)
        ),
        prompt_scores=scores,
    )


def make_detections(
    count: int = 3, *, hw: tuple[int, int] = (48, 64), num_categories: int = 4, seed: int = 0
) -> Detections:
    """Random objects; category ids are 1..num_categories."""
    generator = np.random.default_rng(seed)
    masks = random_masks(generator, count, hw)
    rles = tuple(encode(mask) for mask in masks)
    xywh = np.array([coco_mask.toBbox(rle) for rle in rles], np.float32).reshape(count, 4)
    probabilities = generator.dirichlet(np.ones(num_categories), count).astype(np.float32)
    order = np.argsort(-probabilities, axis=1)
    best = np.take_along_axis(probabilities, order, axis=1)
    prompts = make_prompts(generator, count, hw)
    return Detections(
        prompt_ids=prompts.prompt_ids,
        segmentations=rles,
        boxes_xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        areas=np.array([mask.sum() for mask in masks], np.int64),
        category_ids=order[:, 0].astype(np.int64) + 1,
        scores=best[:, 0],
        margins=best[:, 0] - best[:, 1],
        stability_scores=generator.uniform(0, 1, count).astype(np.float32),
        topk=tuple(
            tuple(
                (f"name {index + 1}", float(probabilities[row, index])) for index in order[row, :2]
            )
            for row in range(count)
        ),
        prompts=prompts,
    )


def with_predicted_iou(result: ImageResult) -> ImageResult:
    """The same objects as a model that predicts the IoU of its masks would give them."""
    assert result.detections is not None
    ious = np.linspace(0.3, 1.01, len(result.detections), dtype=np.float32)
    return replace(result, detections=replace(result.detections, iou_predictions=ious))


def make_result(
    image_id: int = 1, count: int = 3, *, hw: tuple[int, int] = (48, 64)
) -> ImageResult:
    """A labelled image; `empty` where count is 0."""
    record = ImageRecord(Path(f"/photos/dir/{image_id}.jpg"), f"dir/{image_id}.jpg", image_id)
    return ImageResult(
        record=record,
        status="ok" if count else "empty",
        original_hw=hw,
        detections=make_detections(count, hw=hw, seed=image_id),
    )


def failed_result(image_id: int = 9) -> ImageResult:
    """An image that could not be read, with a name that is not UTF-8."""
    name = f"br\udce9l\u00e9/{image_id}.jpg"
    return ImageResult(
        record=ImageRecord(Path("/photos") / name, name, image_id),
        status="failed",
        reason="truncated",
        message="ends after 1200 bytes",
        warnings=("first", "second"),
    )


def assert_same_result(found: ImageResult, expected: ImageResult) -> None:
    """Equal in every field, floats bit for bit, NaN equal to NaN."""
    for name in ("record", "status", "original_hw", "exif_orientation"):
        assert getattr(found, name) == getattr(expected, name)
    for name in ("reason", "message", "warnings"):
        assert getattr(found, name) == getattr(expected, name)
    if expected.detections is None:
        assert found.detections is None
        return
    assert found.detections is not None
    for name in Detections.__slots__:
        if name != "prompts":
            _assert_same(getattr(found.detections, name), getattr(expected.detections, name))
    for name in Prompts.__slots__:
        ours, theirs = found.detections.prompts, expected.detections.prompts
        _assert_same(getattr(ours, name), getattr(theirs, name))


def _assert_same(found: object, expected: object) -> None:
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert found.dtype == expected.dtype or expected.dtype == np.float64
        np.testing.assert_array_equal(found, expected.astype(found.dtype))
    else:
        assert found == expected
