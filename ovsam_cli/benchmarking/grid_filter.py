"""The automatic mode's filter on many masks: SAM's formulas at image size, and ours (C8).

SAM's automatic generator (Kirillov et al. 2023, appendix B) measures stability and boxes on masks
of the image's size. Duplicates are those of `labelling.grid`, here from the matrix of all overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovsam_cli.benchmarking.comparison import Comparison, Parity, time_in_turns
from ovsam_cli.benchmarking.samples import draw_mask_logits
from ovsam_cli.benchmarking.settings import BenchSettings
from ovsam_cli.labelling.crops import make_crops
from ovsam_cli.labelling.grid import DistinctMasks, DistinctOptions, keep_distinct
from ovsam_cli.labelling.grid_masks import measure_masks
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.structures import FloatArray, ImageGeometry, IntArray

SIDE, MODEL_SIZE = 256, 1024
COPIES = 8  # near-duplicates of each object
OFFSET = 1.0  # logits by which a mask is cut higher and lower, as in SAM
CHUNK = 64  # masks at image size that are held at once, as in SAM
# Stability at image size and on the low-resolution logits differ by the pixels on the outline.
STABILITY_LIMIT = 0.02


@dataclass(frozen=True, slots=True)
class PlainMasks:
    """What SAM's formulas say of N masks: (N,) stability, (N, 4) int64 inclusive xyxy boxes."""

    stability_scores: FloatArray
    boxes_xyxy: IntArray


def compare_grid_filters(settings: BenchSettings) -> list[Comparison]:
    """C8: stability, boxes and duplicates of `grid_masks` masks for a 640 x 480 image."""
    count, original_hw = settings.sizes.grid_masks, settings.sizes.vga_hw
    geometry = make_geometry(original_hw)
    logits = draw_mask_logits(count=count, num_objects=-(-count // COPIES), side=SIDE, seed=4)
    mask_logits = torch.from_numpy(logits)[:, None].to(settings.device)
    options = DistinctOptions()

    def filter_plainly() -> IntArray:
        scores = measure_plainly(mask_logits, geometry).stability_scores
        return keep_plainly(_cut_padding(mask_logits, geometry), scores, options)

    baseline, ours = time_in_turns(
        filter_plainly,
        lambda: filter_grid(mask_logits, geometry, options),
        rounds=settings.rounds,
        clock=settings.clock,
    )
    height, width = original_hw
    return [
        Comparison(
            "C8",
            f"grid filter of {count} masks, {width} x {height}",
            settings.clock,
            baseline,
            ours,
            _find_parity(mask_logits, geometry, options),
            target=50.0 if count >= 1024 else None,
            note="stability, boxes and duplicates; SAM's formulas on masks of the image's size / "
            "low-resolution logits and one bit a cell",
        )
    ]


def make_geometry(original_hw: tuple[int, int], model_size: int = MODEL_SIZE) -> ImageGeometry:
    """The frames of an image of this size (spec section 2)."""
    scale = model_size / max(original_hw)
    height, width = (int(side * scale + 0.5) for side in original_hw)
    return ImageGeometry(original_hw, (height, width), model_size)


def filter_grid(
    mask_logits: Tensor, geometry: ImageGeometry, options: DistinctOptions
) -> DistinctMasks:
    """Ours: rows of (N, 1, h, w) logits that stay, best first."""
    found = measure_masks(DecodedMasks(mask_logits, None), geometry, stability_offset=OFFSET)
    (crop,) = make_crops(geometry.original_hw, points_per_side=1)
    return keep_distinct(found, geometry, crop, geometry.original_hw, options)


def _cut_padding(mask_logits: Tensor, geometry: ImageGeometry) -> Tensor:
    """(N, 1, h, w) -> (N, h', w'), the cells that lie in the image at least in part."""
    height, width = (-(-side * SIDE // geometry.model_size) for side in geometry.input_hw)
    return mask_logits[:, 0, :height, :width]


def measure_plainly(mask_logits: Tensor, geometry: ImageGeometry) -> PlainMasks:
    """Stability and boxes of (N, 1, h, w) logits, each mask enlarged to the image's size."""
    height, width = geometry.input_hw
    side = (geometry.model_size, geometry.model_size)
    scores, boxes = [], []
    for chunk in torch.split(mask_logits, CHUNK):
        frame = F.interpolate(chunk, side, mode="bilinear")[..., :height, :width]
        full = F.interpolate(frame, geometry.original_hw, mode="bilinear")[:, 0]
        high = (full > OFFSET).sum(dim=(1, 2))
        low = (full > -OFFSET).sum(dim=(1, 2)).clamp(min=1)
        scores.append(high / low)
        boxes.append(_find_boxes(full > 0))
    return PlainMasks(
        torch.cat(scores).float().cpu().numpy(), torch.cat(boxes).cpu().numpy().astype(np.int64)
    )


def _find_boxes(masks: Tensor) -> Tensor:
    """(N, H, W) bool -> (N, 4) xyxy of the first and last lit pixels, by SAM's maximum trick."""
    num_masks, height, width = masks.shape
    sides = []
    for lit, length in ((masks.any(dim=1), width), (masks.any(dim=2), height)):
        places = lit * torch.arange(length, device=masks.device)
        last = places.amax(dim=1)
        first = torch.where(lit, places, length).amin(dim=1)
        sides.append((first, last))
    (x0, x1), (y0, y1) = sides
    found = torch.stack([x0, y0, x1, y1], dim=1)
    return found * masks.any(dim=(1, 2)).view(num_masks, 1)


def keep_plainly(mask_logits: Tensor, scores: FloatArray, options: DistinctOptions) -> IntArray:
    """Rows of (N, h, w) logits that stay, best first, from the matrix of all overlaps.

    Args:
        mask_logits: without padding.
        scores: (N,) stability.
        options: as for `keep_distinct`.
    """
    masks = (mask_logits > 0).flatten(1).float()
    shared = masks @ masks.T  # (N, N): exact, counts are below 2^24
    areas = masks.sum(dim=1)
    smaller = torch.minimum(areas[:, None], areas)
    larger = torch.maximum(areas[:, None], areas)
    is_inside = (shared > options.max_containment * smaller) & (
        smaller >= options.similar_area * larger
    )
    is_alike = (shared > options.max_iou * (areas[:, None] + areas - shared)) | is_inside
    alike, sizes = is_alike.cpu().numpy(), areas.cpu().numpy()
    limit = options.max_image_share * masks.shape[1]
    is_left = (sizes > 0) & (sizes <= limit) & (scores >= options.min_stability)
    kept = []
    for row in np.argsort(-scores, kind="stable"):
        if is_left[row]:
            kept.append(int(row))
            is_left &= ~alike[row]
    return np.asarray(kept, np.int64)


def _find_parity(
    mask_logits: Tensor, geometry: ImageGeometry, options: DistinctOptions
) -> tuple[Parity, ...]:
    """The same survivors from the same stabilities; stabilities and boxes alike at both sizes."""
    found = measure_masks(DecodedMasks(mask_logits, None), geometry, stability_offset=OFFSET)
    plain = measure_plainly(mask_logits, geometry)
    inside = _cut_padding(mask_logits, geometry)
    by_matrix = keep_plainly(inside, found.stability_scores, options)
    ours = filter_grid(mask_logits, geometry, options).rows
    other = set(ours.tolist()) ^ set(by_matrix.tolist())
    stability = np.abs(found.stability_scores - plain.stability_scores).max()
    input_boxes = (found.boxes_xyxy * found.cell_size).astype(np.float32)
    ends = plain.boxes_xyxy + np.array([0, 0, 1, 1])  # exclusive right and bottom, as ours are
    apart = np.abs(geometry.to_original_frame(input_boxes) - ends)[found.areas > 0]
    cell = found.cell_size * max(geometry.original_hw) / geometry.model_size
    return (
        Parity("masks kept by one side only", len(other), 0),
        Parity("stability, largest difference", float(stability), STABILITY_LIMIT),
        Parity("box sides, largest difference in cells", float(apart.max(initial=0) / cell), 1.0),
    )
