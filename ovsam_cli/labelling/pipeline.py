"""The stages in order, for a batch of images: encode, decode, classify, postprocess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ovsam_cli.errors import ImageError
from ovsam_cli.images import preprocess
from ovsam_cli.labelling.crops import Crop, make_crops, merge_crops, uncrop_detections
from ovsam_cli.labelling.grid import (
    DistinctOptions,
    GridMasks,
    find_good,
    keep_distinct,
    measure_masks,
    prompts_from_grid,
)
from ovsam_cli.labelling.options import GridOptions
from ovsam_cli.labelling.planner import ImageBatch, PreparedImage
from ovsam_cli.labelling.postprocess import postprocess
from ovsam_cli.labelling.stages import Labeller, classify, decode, encode
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import ImageFeatures
from ovsam_cli.structures import Detections, FloatArray, ImageGeometry, Prompts


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """Logits of B prompts: one mask each in the padded model frame, classes (B, K + 1)."""

    prompts: Prompts
    decoded: DecodedMasks
    class_logits: Tensor


@torch.inference_mode()
def label_batch(labeller: Labeller, batch: ImageBatch) -> list[Detections | ImageError]:
    """Label I images with prompts of their own.

    Returns:
        (I,) the objects of each image, in prompt order; an error where the network's output for
        an image is not finite.
    """
    features = encode(labeller, batch.pixels, batch.geometries)
    chunks = [
        decode_and_classify(labeller, features, prompts, batch.geometries)
        for prompts in batch.prompts.split(labeller.options.prompts_per_batch)
    ]
    return [
        _finish_image(labeller, chunks, index, geometry)
        for index, geometry in enumerate(batch.geometries)
    ]


@torch.inference_mode()
def label_by_grid(
    labeller: Labeller, image: PreparedImage, grid: GridOptions
) -> Detections | ImageError:
    """Label one image without prompts: every point of a grid, each object once.

    Returns:
        The objects, best first within the image and within each crop: by predicted IoU, or by
        stability where the model predicts none.
    """
    original_hw = image.geometry.original_hw
    crops = make_crops(
        original_hw, points_per_side=grid.points_per_side, crop_layers=grid.crop_layers
    )
    parts: list[tuple[Crop, Detections]] = []
    first_prompt_id = 0
    for crop in crops:
        found = _label_crop(labeller, image, crop, grid, first_prompt_id)
        if isinstance(found, ImageError):
            return found
        parts.append((crop, uncrop_detections(found, crop, original_hw)))
        first_prompt_id += crop.points_per_side**2
    return parts[0][1] if len(parts) == 1 else merge_crops(parts, max_iou=grid.nms_iou)


def _label_crop(
    labeller: Labeller, image: PreparedImage, crop: Crop, grid: GridOptions, first_prompt_id: int
) -> Detections | ImageError:
    """The objects of one crop, in its own frame: decode all, name the distinct ones only."""
    pixels, geometry = _cut(labeller, image, crop)
    features = encode(labeller, pixels[None], [geometry])
    prompts = prompts_from_grid(
        crop.hw, points_per_side=crop.points_per_side, first_prompt_id=first_prompt_id
    )
    kept_masks, measures, kept_rows = [], [], []
    size = labeller.options.prompts_per_batch
    options = DistinctOptions(
        min_stability=labeller.stability_cut,
        min_predicted_iou=labeller.predicted_iou_cut,
        max_iou=grid.nms_iou,
    )
    offset = labeller.model.config.stability_offset
    for start, chunk in enumerate(prompts.split(size)):
        decoded = decode(labeller, features, chunk, [geometry])
        measured = measure_masks(decoded, geometry, stability_offset=offset)
        # Poor masks go at once: the logits of a whole grid would not fit beside the model.
        good = find_good(measured, options)
        kept_masks.append(decoded.take(good))
        measures.append(measured.take(good))
        kept_rows.append(good + start * size)
    distinct = keep_distinct(
        GridMasks.concatenate(measures),
        geometry,
        crop,
        image.geometry.original_hw,
        options,
    )
    decoded = DecodedMasks.concatenate(kept_masks).take(distinct.rows)
    chosen = prompts.take(np.concatenate(kept_rows)[distinct.rows])
    return _name_masks(labeller, features, decoded, chosen, geometry)


def _cut(labeller: Labeller, image: PreparedImage, crop: Crop) -> tuple[FloatArray, ImageGeometry]:
    """The crop as an image of its own; the whole image is prepared already."""
    if crop.layer == 0:
        return image.pixels, image.geometry
    x0, y0, x1, y1 = crop.box_xyxy
    wanted = labeller.pixel_format
    return preprocess(
        image.rgb[y0:y1, x0:x1], model_size=wanted.model_size, mean=wanted.mean, std=wanted.std
    )


def _name_masks(
    labeller: Labeller,
    features: ImageFeatures,
    decoded: DecodedMasks,
    prompts: Prompts,
    geometry: ImageGeometry,
) -> Detections | ImageError:
    """Classify decoded masks of one image in chunks and postprocess them together."""
    if len(prompts) == 0:
        return Detections.empty()
    size = labeller.options.prompts_per_batch
    chunks = [
        DecodedChunk(part, one, classify(labeller, features, one.mask_logits, part, [geometry]))
        for part, one in zip(prompts.split(size), decoded.split(size), strict=True)
    ]
    return _finish_image(labeller, chunks, 0, geometry)


def decode_and_classify(
    labeller: Labeller,
    features: ImageFeatures,
    prompts: Prompts,
    geometries: Sequence[ImageGeometry],
) -> DecodedChunk:
    """Masks and names of one chunk of prompts, of any of the batch's images."""
    decoded = decode(labeller, features, prompts, geometries)
    class_logits = classify(labeller, features, decoded.mask_logits, prompts, geometries)
    return DecodedChunk(prompts, decoded, class_logits)


def _finish_image(
    labeller: Labeller, chunks: Sequence[DecodedChunk], index: int, geometry: ImageGeometry
) -> Detections | ImageError:
    """Gather the rows of image `index` from all chunks and postprocess them together."""
    own = [np.flatnonzero(chunk.prompts.image_index == index) for chunk in chunks]
    prompts = Prompts.concatenate(
        [chunk.prompts.take(rows) for chunk, rows in zip(chunks, own, strict=True)]
    )
    if len(prompts) == 0:
        return Detections.empty()
    decoded = DecodedMasks.concatenate(
        [chunk.decoded.take(rows) for chunk, rows in zip(chunks, own, strict=True)]
    )
    class_logits = torch.cat([c.class_logits[rows] for c, rows in zip(chunks, own, strict=True)])
    try:
        return postprocess(
            decoded,
            class_logits,
            prompts,
            geometry,
            labeller.vocabulary,
            labeller.postprocess_options,
        ).detections
    except ImageError as error:
        return error
