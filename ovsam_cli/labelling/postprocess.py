"""From logits to named masks in the image's own pixels: score, filter, cut, encode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from ovsam_cli import masks
from ovsam_cli.errors import ImageError
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.outputs.json_values import shortest_floats
from ovsam_cli.structures import BoolArray, Detections, FloatArray, ImageGeometry, IntArray, Prompts
from ovsam_cli.vocabulary import Vocabulary

DropReason = Literal["empty_mask", "low_predicted_iou", "low_stability", "low_score", "small_area"]
# Encodes the masks at (n,) rows of a prompt's logits; None where it cannot.
EncodeRows = Callable[[IntArray], masks.EncodedMasks | None]


@dataclass(frozen=True, slots=True)
class PostprocessOptions:
    """Which objects are kept, and what is kept of them.

    Attributes:
        min_score: lowest score of a name, in [0, 1].
        min_stability: lowest mask stability, in [0, 1].
        min_predicted_iou: lowest IoU that the model predicts of a mask; None keeps all.
        stability_offset: logits by which a mask is cut higher and lower; the model's own.
        min_area: fewest mask pixels, original frame.
        min_region: islands and holes of fewer pixels are removed from each mask; 0 keeps all.
        top_k: number of best names kept with each object.
        unknown_category_id: category of objects that no name fits: those whose score is below
            `min_score` or below the background's. None drops the former and names the latter.
        is_compiled: encode masks with Numba, which must be installed; same result.
        temperature: by which class logits are divided for probabilities.
    """

    min_score: float = 0.0
    min_stability: float = 0.0
    min_predicted_iou: float | None = None
    stability_offset: float = 1.0
    min_area: int = 0
    min_region: int = 0
    top_k: int = 5
    unknown_category_id: int | None = None
    is_compiled: bool = False
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Postprocessed:
    """The objects of one image, and how many were left out for which reason.

    Attributes:
        detections: n objects.
        rows: (n,) int64 the place of each one's prompt among those given.
        num_dropped: prompts without an object by reason; reasons that did not occur are absent.
    """

    detections: Detections
    rows: IntArray
    num_dropped: Mapping[DropReason, int]


@dataclass(frozen=True, slots=True)
class _NameScores:
    """The best T names of B objects; see `_rank_names`."""

    class_indices: IntArray  # (B, T), best first
    scores: FloatArray  # (B, T)
    background: FloatArray  # (B,)

    @property
    def margins(self) -> FloatArray:
        """(B,) float32: best minus second best; the best itself where there is one name only."""
        if self.scores.shape[1] < 2:
            return self.scores[:, 0]
        return self.scores[:, 0] - self.scores[:, 1]


def postprocess(
    decoded: DecodedMasks,
    class_logits: Tensor,
    prompts: Prompts,
    geometry: ImageGeometry,
    vocabulary: Vocabulary,
    options: PostprocessOptions,
    encode_rows: EncodeRows | None = None,
) -> Postprocessed:
    """Turn the model's output for prompts of one image into its objects, in prompt order.

    A score is a softmax probability over K names and the background; the best name wins even where
    the background has more (as in spec section 6). Stability is that of the low-resolution logits.

    Args:
        decoded: B prompts with M = 1 mask each, any device.
        class_logits: (B, K + 1) float, last column background, any device.
        prompts, geometry: of this image; `vocabulary` has the K categories.
        encode_rows: where the masks are not encoded from the logits given, what does.

    Raises:
        ImageError: a logit is NaN or infinite, so nothing can be said of this image.
    """
    if options.temperature != 1:
        class_logits = class_logits.float() / options.temperature
    low_masks, class_probs = _to_arrays(decoded, class_logits, len(prompts), len(vocabulary))
    iou_predictions = _predicted_ious(decoded)
    names = _rank_names(class_probs, max(options.top_k, 2))
    inside = crop_to_image(low_masks, geometry)
    stability_scores = masks.compute_stability_scores(inside, offset=options.stability_offset)
    dropped: Counter[DropReason] = Counter()  # filled by the two filters
    rows = _filter_logits(inside, iou_predictions, stability_scores, names, options, dropped)
    encoded = None if encode_rows is None else encode_rows(rows)
    if encoded is None:
        encoded = masks.encode_mask_logits(low_masks[rows], geometry, compiled=options.is_compiled)
    rows, encoded = _drop_small(encoded, rows, options, dropped)
    detections = Detections(
        prompt_ids=prompts.take(rows).prompt_ids,
        segmentations=encoded.segmentations,
        boxes_xyxy=encoded.boxes_xyxy,
        areas=encoded.areas,
        category_ids=_choose_categories(names, vocabulary, options)[rows],
        scores=names.scores[rows, 0],
        margins=names.margins[rows],
        stability_scores=stability_scores[rows],
        topk=_name_pairs(names, rows, vocabulary, options.top_k),
        prompts=prompts.take(rows).with_image_index(0),  # results must not depend on the batch
        iou_predictions=None if iou_predictions is None else iou_predictions[rows],
    )
    return Postprocessed(detections, rows, dict(dropped))


def crop_to_image(mask_logits: FloatArray, geometry: ImageGeometry) -> FloatArray:
    """Cut off the cells that lie wholly in the padding.

    Args:
        mask_logits: (..., h, w) padded model frame.
        geometry: the frames of the image.

    Returns:
        (..., h', w'), a view.
    """
    height, width = mask_logits.shape[-2:]
    input_height, input_width = geometry.input_hw
    rows = -(-input_height * height // geometry.model_size)
    columns = -(-input_width * width // geometry.model_size)
    return mask_logits[..., :rows, :columns]


def _to_arrays(
    decoded: DecodedMasks, class_logits: Tensor, num_prompts: int, num_names: int
) -> tuple[FloatArray, FloatArray]:
    """(B, h, w) mask logits and (B, K + 1) class probabilities, finite float32 on the CPU."""
    mask_logits = decoded.mask_logits
    if mask_logits.ndim != 4 or mask_logits.shape[:2] != (num_prompts, 1):
        raise ValueError(f"mask_logits {tuple(mask_logits.shape)} for {num_prompts} prompts")
    if class_logits.shape != (num_prompts, num_names + 1):
        raise ValueError(f"class_logits {tuple(class_logits.shape)} for {num_names} names")
    low_masks: FloatArray = mask_logits[:, 0].float().cpu().numpy()
    class_probs: FloatArray = class_logits.float().softmax(dim=-1).cpu().numpy()
    if not (np.isfinite(low_masks).all() and np.isfinite(class_probs).all()):
        raise ImageError("the model gave NaN or infinite logits", reason="not_finite")
    return low_masks, class_probs


def _predicted_ious(decoded: DecodedMasks) -> FloatArray | None:
    """(B,) finite float32 on the CPU, or None where the model predicts none."""
    if decoded.iou_predictions is None:
        return None
    found: FloatArray = decoded.iou_predictions[:, 0].float().cpu().numpy()
    if not np.isfinite(found).all():
        raise ImageError("the model predicted a NaN or infinite IoU", reason="not_finite")
    return found


def _filter_logits(
    inside: FloatArray,
    iou_predictions: FloatArray | None,
    stability_scores: FloatArray,
    names: _NameScores,
    options: PostprocessOptions,
    dropped: Counter[DropReason],
) -> IntArray:
    """The rows worth cutting at original size; the others are counted in `dropped`."""
    is_empty = np.asarray((inside <= 0).all(axis=(1, 2)))
    rows = _drop(np.arange(len(inside)), is_empty, "empty_mask", dropped)
    if iou_predictions is not None and options.min_predicted_iou is not None:
        is_poor = iou_predictions < options.min_predicted_iou
        rows = _drop(rows, is_poor, "low_predicted_iou", dropped)
    rows = _drop(rows, stability_scores < options.min_stability, "low_stability", dropped)
    if options.unknown_category_id is None:
        rows = _drop(rows, names.scores[:, 0] < options.min_score, "low_score", dropped)
    return rows


def _drop(
    rows: IntArray, is_out: BoolArray, reason: DropReason, dropped: Counter[DropReason]
) -> IntArray:
    """The `rows` that are not out, counting the others; `is_out` is indexed by row."""
    out = is_out[rows]
    if out.any():
        dropped[reason] += int(out.sum())
    return rows[~out]


def _rank_names(class_probs: FloatArray, num_best: int) -> _NameScores:
    """Find the best names of each object; of equals the first in the vocabulary comes first.

    Args:
        class_probs: (B, K + 1), last column background.
        num_best: T, at most K are found.
    """
    left = class_probs[:, :-1].copy()
    num_best = min(num_best, left.shape[1])
    rows = np.arange(len(left))
    class_indices = np.empty((len(left), num_best), np.int64)
    for rank in range(num_best):
        # Repeated argmax: T is small, and unlike a partial sort it has a rule for ties.
        class_indices[:, rank] = left.argmax(axis=1)
        left[rows, class_indices[:, rank]] = -1
    scores = np.take_along_axis(class_probs, class_indices, axis=1)
    return _NameScores(class_indices, scores, class_probs[:, -1])


def _choose_categories(
    names: _NameScores, vocabulary: Vocabulary, options: PostprocessOptions
) -> IntArray:
    """(B,) category ids: the best name's, or the unknown one where no name fits well enough."""
    best = names.scores[:, 0]
    category_ids = np.asarray(vocabulary.ids, np.int64)[names.class_indices[:, 0]]
    if options.unknown_category_id is not None:
        is_unknown = (best < options.min_score) | (names.background > best)
        category_ids[is_unknown] = options.unknown_category_id
    return category_ids


def _drop_small(
    encoded: masks.EncodedMasks,
    rows: IntArray,
    options: PostprocessOptions,
    dropped: Counter[DropReason],
) -> tuple[IntArray, masks.EncodedMasks]:
    """The `rows` whose masks, without small regions, are large enough, and those masks."""
    segmentations, areas, boxes_xyxy = encoded.segmentations, encoded.areas, encoded.boxes_xyxy
    if options.min_region > 0:
        segmentations = tuple(
            masks.encode_mask(
                masks.remove_small_regions(masks.decode_mask(rle), options.min_region)
            )
            for rle in segmentations
        )
        areas, boxes_xyxy = masks.mask_areas(segmentations), masks.mask_boxes(segmentations)
    kept = _drop(np.arange(len(rows)), areas == 0, "empty_mask", dropped)
    kept = _drop(kept, areas < options.min_area, "small_area", dropped)
    segmentations = tuple(segmentations[row] for row in kept)
    return rows[kept], masks.EncodedMasks(segmentations, areas[kept], boxes_xyxy[kept])


def _name_pairs(
    names: _NameScores, rows: IntArray, vocabulary: Vocabulary, top_k: int
) -> tuple[tuple[tuple[str, float], ...], ...]:
    """The best `top_k` (name, score) pairs of each row."""
    return tuple(
        tuple(
            (vocabulary.categories[index].name, score)
            for index, score in zip(
                names.class_indices[row, :top_k].tolist(),
                shortest_floats(names.scores[row, :top_k]),
                strict=True,
            )
        )
        for row in rows
    )
