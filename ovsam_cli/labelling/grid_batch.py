"""The automatic mode on the device: every point of a grid is decoded, each object named once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ovsam_cli.images import resize_to_input
from ovsam_cli.labelling.crops import Crop, make_crops
from ovsam_cli.labelling.device_batch import (
    ChunkOutput,
    View,
    ViewFeatures,
    encode_views,
    send_home,
)
from ovsam_cli.labelling.grid import (
    DistinctOptions,
    find_good,
    keep_distinct,
    prompts_from_grid,
)
from ovsam_cli.labelling.grid_masks import GridMasks, measure_masks
from ovsam_cli.labelling.model_prompts import to_model_prompts
from ovsam_cli.labelling.options import GridOptions
from ovsam_cli.labelling.planner import PreparedImage
from ovsam_cli.labelling.prompt_chunks import fill_up
from ovsam_cli.labelling.stages import Labeller, classify, decode
from ovsam_cli.labelling.work_sizes import WorkSizes, run_in_chunks
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import IntArray, Prompts


@dataclass(frozen=True, slots=True)
class _GoodMasks:
    """What is left of a chunk of grid points: n masks on the device, and their measures."""

    rows: IntArray  # (n,) among the grid's prompts
    decoded: DecodedMasks
    measured: GridMasks


@dataclass(frozen=True, slots=True)
class _GridPoints:
    """The grid of one view."""

    labeller: Labeller
    encoded: ViewFeatures  # of this view alone
    prompts: Prompts  # in the view's own pixels
    original_hw: tuple[int, int]  # of the whole image
    nms_iou: float

    @property
    def view(self) -> View:
        (view,) = self.encoded.views
        return view

    @property
    def distinct_options(self) -> DistinctOptions:
        return DistinctOptions(
            min_stability=self.labeller.stability_cut,
            min_predicted_iou=self.labeller.predicted_iou_cut,
            max_iou=self.nms_iou,
        )

    def to_model(self, prompts: Prompts) -> ModelPrompts:
        return to_model_prompts(prompts, self.encoded.geometries, device=self.labeller.device)


def iter_grid_outputs(
    labeller: Labeller,
    images: Sequence[PreparedImage],
    uploaded: Sequence[Tensor],
    sizes: WorkSizes,
    grid: GridOptions,
) -> Iterator[ChunkOutput]:
    """Label I images without prompts.

    Args:
        labeller: model, names and options.
        images: I images; with crops their own pixels are read.
        uploaded: their (h, w, 3) uint8 pixels on the device.
        sizes: prompts a chunk.
        grid: the points and the crops.

    Raises:
        MemoryError: even the smallest chunk was too large; fewer images may fit.
    """
    crops = [_make_crops(image, grid) for image in images]
    views = tuple(
        View(place, image.geometry, crops[place][0]) for place, image in enumerate(images)
    )
    whole = encode_views(labeller, views, uploaded, sizes)
    for place, image in enumerate(images):
        first_prompt_id = 0
        for crop in crops[place]:
            if crop.layer > 0:
                encoded = _encode_crop(labeller, place, image, crop, sizes)
            else:
                encoded = whole.only(place)
            prompts = prompts_from_grid(
                crop.hw, points_per_side=crop.points_per_side, first_prompt_id=first_prompt_id
            )
            original_hw = image.geometry.original_hw
            points = _GridPoints(labeller, encoded, prompts, original_hw, grid.nms_iou)
            yield from _iter_view_outputs(points, sizes)
            first_prompt_id += crop.points_per_side**2


def _make_crops(image: PreparedImage, grid: GridOptions) -> tuple[Crop, ...]:
    return make_crops(
        image.geometry.original_hw,
        points_per_side=grid.points_per_side,
        crop_layers=grid.crop_layers,
    )


def _encode_crop(
    labeller: Labeller, place: int, image: PreparedImage, crop: Crop, sizes: WorkSizes
) -> ViewFeatures:
    """A part of an image as an image of its own."""
    assert image.rgb is not None  # kept for runs with crops
    x0, y0, x1, y1 = crop.box_xyxy
    part = np.ascontiguousarray(image.rgb[y0:y1, x0:x1])
    resized, geometry = resize_to_input(part, labeller.pixel_format.model_size)
    # A copy: where nothing was resized it is the image's own memory, which is read-only.
    uploaded = torch.tensor(resized).to(labeller.device)
    return encode_views(labeller, (View(place, geometry, crop),), [uploaded], sizes)


def _iter_view_outputs(points: _GridPoints, sizes: WorkSizes) -> Iterator[ChunkOutput]:
    """The objects of one view: decode all, then name the distinct ones only."""
    good = list(run_in_chunks(len(points.prompts), sizes, partial(_decode_good, points)))
    measured = GridMasks.concatenate([part.measured for part in good])
    crop = points.view.crop
    assert crop is not None
    distinct = keep_distinct(
        measured, points.view.geometry, crop, points.original_hw, points.distinct_options
    )
    decoded = DecodedMasks.concatenate([part.decoded for part in good]).take(distinct.rows)
    rows = np.concatenate([part.rows for part in good])[distinct.rows]
    name = partial(_name_rows, points, decoded, points.prompts.take(rows))
    yield from run_in_chunks(len(rows), sizes, name)


def _decode_good(points: _GridPoints, rows: slice, num_rows: int) -> _GoodMasks:
    """Decode the points at `rows`; poor masks go at once: a whole grid's would not fit."""
    chosen = points.prompts.take(rows)
    model_prompts = points.to_model(fill_up(chosen, num_rows))
    decoded = decode(points.labeller, points.encoded.features, model_prompts)
    decoded = decoded.take(slice(0, len(chosen)))
    offset = points.labeller.model.config.stability_offset
    measured = measure_masks(decoded, points.view.geometry, stability_offset=offset)
    good = find_good(measured, points.distinct_options)
    return _GoodMasks(good + rows.start, decoded.take(good), measured.take(good))


def _name_rows(
    points: _GridPoints, decoded: DecodedMasks, prompts: Prompts, rows: slice, num_rows: int
) -> ChunkOutput:
    """Classify the survivors at `rows`, filled up on the device."""
    chosen, real = prompts.take(rows), decoded.take(rows)
    filled = real.mask_logits
    if num_rows > len(chosen):
        filled = torch.cat([filled, filled[-1:].expand(num_rows - len(chosen), -1, -1, -1)])
    model_prompts = points.to_model(fill_up(chosen, num_rows))
    class_logits = classify(points.labeller, points.encoded.features, filled, model_prompts)
    order = np.arange(rows.start, rows.stop)
    named = class_logits[: len(chosen)]
    return send_home(points.labeller, points.encoded.views, chosen, order, real, named)
