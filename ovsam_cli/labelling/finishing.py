"""From logits in host memory to the results of images; runs in threads beside the device's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ovsam_cli import masks
from ovsam_cli.errors import ImageError
from ovsam_cli.labelling.crops import (
    Crop,
    concatenate_detections,
    make_crops,
    merge_crops,
    take_detections,
    uncrop_detections,
)
from ovsam_cli.labelling.device_batch import ChunkOutput, View
from ovsam_cli.labelling.device_masks import encode_beside, is_large
from ovsam_cli.labelling.planner import PreparedImage
from ovsam_cli.labelling.postprocess import EncodeRows, postprocess
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.labelling.work_sizes import attempt
from ovsam_cli.structures import Detections, ImageResult, IntArray


@dataclass(frozen=True, slots=True)
class FinishedPart:
    """Objects of one image out of one chunk of prompts.

    Attributes:
        image: place of the image in its batch.
        crop: in grid mode, the part of the image whose pixels the objects count.
        order: (n,) int64, where the objects stand in the image's result.
        found: n objects, or why there can be none.
    """

    image: int
    crop: Crop | None
    order: IntArray
    found: Detections | ImageError


def finish_chunk(labeller: Labeller, output: ChunkOutput) -> list[FinishedPart]:
    """Score, filter and encode the masks of a chunk, image by image."""
    if output.ready is not None:
        output.ready.synchronize()
    parts = []
    for index in np.unique(output.prompts.image_index).tolist():
        view = output.views[index]
        rows = np.flatnonzero(output.prompts.image_index == index)
        parts.append(_finish_rows(labeller, output, view, rows))
    return parts


def _finish_rows(
    labeller: Labeller, output: ChunkOutput, view: View, rows: IntArray
) -> FinishedPart:
    try:
        done = postprocess(
            output.decoded.take(rows),
            output.class_logits[rows],
            output.prompts.take(rows),
            view.geometry,
            labeller.vocabulary,
            labeller.postprocess_options,
            _choose_encoder(output, view, rows),
        )
    except ImageError as error:
        return FinishedPart(view.image, view.crop, rows, error)
    except MemoryError:
        no_memory = ImageError("not enough memory for its masks", reason="out_of_memory")
        return FinishedPart(view.image, view.crop, rows, no_memory)
    return FinishedPart(view.image, view.crop, output.order[rows][done.rows], done.detections)


def _choose_encoder(output: ChunkOutput, view: View, rows: IntArray) -> EncodeRows | None:
    """What encodes masks on the device, if they are encoded there; it takes some of `rows`."""
    mask_logits = output.device_mask_logits
    if mask_logits is None or not is_large(view.geometry):
        return None

    def encode(kept: IntArray) -> masks.EncodedMasks | None:
        # The network needs the device more: where memory ran out, the host does it.
        return attempt(partial(encode_beside, mask_logits, rows[kept], view.geometry))

    return encode


def join_image(
    labeller: Labeller, image: PreparedImage, parts: Iterable[FinishedPart]
) -> Detections | ImageError:
    """The objects of one image out of all its parts, in the order of its prompts."""
    by_crop: dict[Crop | None, list[tuple[IntArray, Detections]]] = {}
    for part in parts:
        if isinstance(part.found, ImageError):
            return part.found
        by_crop.setdefault(part.crop, []).append((part.order, part.found))
    joined = [(crop, _join(of_crop)) for crop, of_crop in by_crop.items()]
    if not joined:
        return Detections.empty()
    grid, original_hw = labeller.options.grid, image.geometry.original_hw
    if grid is None or grid.crop_layers == 0:
        return joined[0][1]
    if len(make_crops(original_hw, points_per_side=1, crop_layers=grid.crop_layers)) == 1:
        return joined[0][1]  # too small for crops
    return merge_crops(
        [
            (crop, uncrop_detections(found, crop, original_hw))
            for crop, found in joined
            if crop is not None
        ],
        max_iou=grid.nms_iou,
    )


def _join(parts: Sequence[tuple[IntArray, Detections]]) -> Detections:
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([order for order, _ in parts]), kind="stable")
    return take_detections(concatenate_detections([found for _, found in parts]), order)


def to_result(image: PreparedImage, found: Detections | ImageError) -> ImageResult:
    """The journal row of an image."""
    if isinstance(found, ImageError):
        return ImageResult(image.record, "failed", reason=found.reason, message=str(found))
    return ImageResult(
        record=image.record,
        status="ok" if len(found) else "empty",
        original_hw=image.geometry.original_hw,
        exif_orientation=image.exif_orientation,
        detections=found,
        warnings=image.warnings,
    )
