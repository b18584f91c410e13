"""What the stages hand to one another: frozen, checked once when made, numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import supervision

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Scalar = TypeVar("Scalar", np.float32, np.int64)
Status = Literal["ok", "empty", "failed"]


class Rle(TypedDict):
    """COCO compressed run-length encoding: `size` is [height, width], `counts` an ASCII string."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a run.

    Attributes:
        path: where the file is, on this machine or by its URL.
        file_name: POSIX path relative to the run's root; the image's identity everywhere.
        image_id: 1-based position in the sorted list of the run's images.
    """

    path: Path | str
    file_name: str
    image_id: int


@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """The frames of one image and the way between them.

    The original frame is the image's own pixels after EXIF rotation; the input frame is the
    image resized to the model's long side. The padded model frame has the same coordinates as
    the input frame, because padding is right and bottom only (spec section 2).
    """

    original_hw: tuple[int, int]
    input_hw: tuple[int, int]
    model_size: int

    @property
    def scale_xy(self) -> tuple[float, float]:
        """(input width / original width, input height / original height), as the paper's code."""
        (height, width), (input_height, input_width) = self.original_hw, self.input_hw
        return input_width / width, input_height / height

    def to_input_frame(self, coords: FloatArray) -> FloatArray:
        """Scale (..., 2) points or (..., 4) xyxy boxes from original to input-frame pixels."""
        scale = np.tile(np.asarray(self.scale_xy, np.float32), coords.shape[-1] // 2)
        return (coords * scale).astype(np.float32)

    def to_original_frame(self, coords: FloatArray) -> FloatArray:
        """Scale (..., 2) points or (..., 4) xyxy boxes from input-frame to original pixels."""
        scale = np.tile(np.asarray(self.scale_xy, np.float32), coords.shape[-1] // 2)
        return (coords / scale).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Prompts:
    """B prompts in the original frame; each has points, a box, a mask, or any mix of them.

    Attributes:
        prompt_ids: (B,) the caller's ids, unchanged into the output.
        image_index: (B,) int64, which image of the batch each prompt belongs to.
        point_coords: (B, N, 2) float32 (x, y) pixels; N is the largest number of points.
        point_labels: (B, N) int64: 1 foreground, 0 background, -1 filler (no point here).
        boxes_xyxy: (B, 4) float32 pixels; a row of NaN where the prompt has no box.
        masks: (B,) mask prompts as RLE, or None.
        prompt_scores: (B,) float32 caller's scores (a detector's, say); NaN where there is none.
    """

    prompt_ids: tuple[int | str, ...]
    image_index: IntArray
    point_coords: FloatArray
    point_labels: IntArray
    boxes_xyxy: FloatArray
    masks: tuple[Rle | None, ...]
    prompt_scores: FloatArray

    def __post_init__(self) -> None:
        count, num_points = len(self.prompt_ids), self.point_coords.shape[1]
        shapes = {
            "image_index": (self.image_index.shape, (count,)),
            "point_coords": (self.point_coords.shape, (count, num_points, 2)),
            "point_labels": (self.point_labels.shape, (count, num_points)),
            "boxes_xyxy": (self.boxes_xyxy.shape, (count, 4)),
            "masks": ((len(self.masks),), (count,)),
            "prompt_scores": (self.prompt_scores.shape, (count,)),
        }
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise ValueError(f"Prompts.{name} has shape {found}, expected {wanted}")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def has_box(self) -> BoolArray:
        """(B,) bool: which prompts have a box."""
        return ~np.isnan(self.boxes_xyxy[:, 0])

    def take(self, rows: IntArray | slice) -> Prompts:
        """The prompts at `rows`, in that order."""
        chosen = np.arange(len(self))[rows]
        return Prompts(
            prompt_ids=tuple(self.prompt_ids[row] for row in chosen),
            image_index=self.image_index[chosen],
            point_coords=self.point_coords[chosen],
            point_labels=self.point_labels[chosen],
            boxes_xyxy=self.boxes_xyxy[chosen],
            masks=tuple(self.masks[row] for row in chosen),
            prompt_scores=self.prompt_scores[chosen],
        )

    def split(self, prompts_per_batch: int) -> Iterator[Prompts]:
        """Consecutive chunks of at most `prompts_per_batch` prompts."""
        for start in range(0, len(self), prompts_per_batch):
            yield self.take(slice(start, start + prompts_per_batch))

    def with_image_index(self, index: int) -> Prompts:
        """The same prompts, all belonging to image `index` of a batch."""
        return replace(self, image_index=np.full(len(self), index, np.int64))

    @staticmethod
    def concatenate(parts: Sequence[Prompts]) -> Prompts:
        """Join prompts of several images; shorter point lists are filled with label -1."""
        width = max((part.point_coords.shape[1] for part in parts), default=0)
        coords = [_fill(part.point_coords, width, 0.0) for part in parts]
        labels = [_fill(part.point_labels, width, -1) for part in parts]
        return Prompts(
            prompt_ids=tuple(name for part in parts for name in part.prompt_ids),
            image_index=np.concatenate([np.empty(0, np.int64), *(p.image_index for p in parts)]),
            point_coords=np.concatenate([np.empty((0, width, 2), np.float32), *coords]),
            point_labels=np.concatenate([np.empty((0, width), np.int64), *labels]),
            boxes_xyxy=np.concatenate(
                [np.empty((0, 4), np.float32), *(p.boxes_xyxy for p in parts)]
            ),
            masks=tuple(mask for part in parts for mask in part.masks),
            prompt_scores=np.concatenate(
                [np.empty(0, np.float32), *(p.prompt_scores for p in parts)]
            ),
        )


def _fill(array: NDArray[Scalar], width: int, value: float) -> NDArray[Scalar]:
    padding = [(0, 0), (0, width - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, padding, constant_values=value)


@dataclass(frozen=True, slots=True)
class Detections:
    """B labelled objects of one image, in the original frame.

    Attributes:
        prompt_ids: (B,) the prompt each object came from.
        segmentations: (B,) COCO RLEs; never empty masks.
        boxes_xyxy: (B, 4) float32 pixels, tight around the mask (exclusive right and bottom).
        areas: (B,) int64 mask pixels.
        category_ids: (B,) int64.
        scores: (B,) float32 in [0, 1]: the winning name's probability among all names,
            background left out.
        margins: (B,) float32: best minus second-best probability.
        stability_scores: (B,) float32 in [0, 1]: the mask's quality.
        topk: (B,) the best (name, probability) pairs, best first.
        prompts: the prompts of these objects, row by row.
        iou_predictions: (B,) float32, the model's own estimate of each mask's IoU with its
            object (about 0 to 1, not clipped); None for a model without that head, never zeros.
    """

    prompt_ids: tuple[int | str, ...]
    segmentations: tuple[Rle, ...]
    boxes_xyxy: FloatArray
    areas: IntArray
    category_ids: IntArray
    scores: FloatArray
    margins: FloatArray
    stability_scores: FloatArray
    topk: tuple[tuple[tuple[str, float], ...], ...]
    prompts: Prompts
    iou_predictions: FloatArray | None = None

    def __post_init__(self) -> None:
        wanted = len(self.prompt_ids)
        for name in self.__slots__:
            column = getattr(self, name)
            found = wanted if column is None else len(column)
            if found != wanted:
                raise ValueError(f"Detections.{name} has {found} rows, expected {wanted}")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def to_supervision(self, names: Mapping[int, str] | None = None) -> supervision.Detections:
        """The same objects for the package `supervision` (`pip install supervision`).

        Args:
            names: of the category ids, as `Labeller.names` has them; None leaves them out.

        Returns:
            With (B, H, W) bool masks, `class_id` the category ids, `confidence` the scores, and
            `data` with `prompt_id` and, given `names`, `class_name`.

        Raises:
            ImportError: the package is not there.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("install it first: pip install 'supervision>=0.31'") from error
        if not len(self):
            return supervision.Detections.empty()
        sizes = [rle["size"] for rle in self.segmentations]
        decoded = [
            supervision.rle_to_mask(rle["counts"], (width, height))
            for rle, (height, width) in zip(self.segmentations, sizes, strict=True)
        ]
        data: dict[str, np.ndarray | list[object]] = {
            "prompt_id": np.array([str(one) for one in self.prompt_ids])
        }
        if names is not None:
            data["class_name"] = np.array([names[one] for one in self.category_ids.tolist()])
        return supervision.Detections(
            xyxy=self.boxes_xyxy,
            mask=np.stack(decoded),
            confidence=self.scores,
            class_id=self.category_ids,
            data=data,
        )

    @staticmethod
    def empty() -> Detections:
        """No objects."""
        none = np.empty(0, np.float32)
        return Detections(
            prompt_ids=(),
            segmentations=(),
            boxes_xyxy=np.empty((0, 4), np.float32),
            areas=np.empty(0, np.int64),
            category_ids=np.empty(0, np.int64),
            scores=none,
            margins=none,
            stability_scores=none,
            topk=(),
            prompts=Prompts.concatenate([]),
        )


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What became of one image: a journal row.

    Attributes:
        record: which image.
        status: `ok` (objects found), `empty` (none found) or `failed`.
        original_hw: (height, width) after EXIF rotation; (0, 0) when it could not be read.
        exif_orientation: the file's EXIF tag, 1 when absent.
        detections: None when failed.
        reason, message: class and text of the failure, else empty.
        warnings: what was noticed but did not stop the image.
    """

    record: ImageRecord
    status: Status
    original_hw: tuple[int, int] = (0, 0)
    exif_orientation: int = 1
    detections: Detections | None = None
    reason: str = ""
    message: str = ""
    warnings: tuple[str, ...] = field(default=())
