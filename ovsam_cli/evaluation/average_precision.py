"""Average precision and recall of objects against ground truth, by faster-coco-eval; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import numpy as np
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray

from ovsam_cli.structures import Rle

OverlapKind = Literal["bbox", "segm"]
Style = Literal["coco", "lvis"]
AREAS = ("all", "small", "medium", "large")
COCO_LIMITS = (1, 10, 100)
LVIS_LIMIT = 300  # objects an image over all categories


class CocoObject(TypedDict):
    """An annotation of ground truth, or a detection, as the evaluation wants it."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int
    segmentation: NotRequired[Rle]
    score: NotRequired[float]


class CocoImage(TypedDict):
    """An image of ground truth; the lists are LVIS's."""

    id: int
    height: int
    width: int
    neg_category_ids: NotRequired[list[int]]
    not_exhaustive_category_ids: NotRequired[list[int]]


class CocoCategoryRow(TypedDict):
    """A category of ground truth; LVIS's has a frequency."""

    id: int
    name: str
    frequency: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth of a data set, in the form of the evaluation.

    Attributes:
        images, categories, objects: object ids begin at 1, for 0 means "unmatched" to it.
    """

    images: tuple[CocoImage, ...]
    categories: tuple[CocoCategoryRow, ...]
    objects: tuple[CocoObject, ...]


@dataclass(frozen=True, slots=True)
class PrecisionTable:
    """Precision and recall at every threshold; -1 where a category has no object.

    Attributes:
        precision: (T, R, K, A, M) IoU thresholds, recalls, categories, areas, limits.
        recall: (T, K, A, M).
        thresholds: (T,) IoU.
        category_ids: (K,); one row for all of them where names do not count.
        limits: (M,) most objects an image.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    category_ids: tuple[int, ...]
    limits: tuple[int, ...]

    def mean_precision(
        self,
        *,
        area: str = "all",
        iou: float | None = None,
        categories: frozenset[int] | None = None,
    ) -> float | None:
        """Mean over thresholds, recalls and categories; None without objects.

        Args:
            area: of `AREAS`.
            iou: one threshold, or all.
            categories: ids of those that count, or all.
        """
        found = self.precision[self._at(iou), :, :, AREAS.index(area), -1]
        return _mean(found[:, :, self._rows(categories)])

    def mean_recall(
        self, *, area: str = "all", limit: int | None = None, iou: float | None = None
    ) -> float | None:
        """Mean over thresholds and categories; None without objects.

        Args:
            area: of `AREAS`.
            limit: one of `limits`, or the largest.
            iou: one threshold, or all.
        """
        column = -1 if limit is None else self.limits.index(limit)
        return _mean(self.recall[self._at(iou), :, AREAS.index(area), column])

    def curve(self, iou: float | None = None) -> tuple[float, ...]:
        """Precision at recalls of 0 to 1, mean over categories (and thresholds); empty without.

        Args:
            iou: one threshold, or all.
        """
        found = self.precision[self._at(iou), :, :, 0, -1]  # (T, R, K)
        known = found[:, :, (found > -1).all(axis=(0, 1))]
        if not known.size:
            return ()
        return tuple(float(one) for one in known.mean(axis=(0, 2)))

    def by_category(self) -> dict[int, float | None]:
        """Mean precision of each category."""
        return {one: self.mean_precision(categories=frozenset({one})) for one in self.category_ids}

    def _at(self, iou: float | None) -> NDArray[np.bool_]:
        if iou is None:
            return np.ones(len(self.thresholds), np.bool_)
        return np.isclose(self.thresholds, iou)

    def _rows(self, categories: frozenset[int] | None) -> list[int]:
        ids = self.category_ids
        return [row for row, one in enumerate(ids) if categories is None or one in categories]


def compute_precision(
    truth: Truth,
    found: Sequence[CocoObject],
    kind: OverlapKind,
    *,
    style: Style = "coco",
    use_categories: bool = True,
    limits: Sequence[int] = COCO_LIMITS,
) -> PrecisionTable:
    """Match objects with ground truth as COCO or LVIS do.

    COCO: Lin et al. 2014, as pycocotools computes it. LVIS (Gupta et al. 2019): categories whose
    absence from an image was not checked do not count there, nor does what is too much in an image
    where not all objects of a category are marked.

    Args:
        truth: the data set.
        found: with scores; `area` is that of the box or of the mask, as `kind` says.
        kind: overlap of boxes or of masks.
        style: whose rules.
        use_categories: False lets any object match any other, for recall of masks alone.
        limits: most objects an image and category; for LVIS see `keep_best`.
    """
    marked, detected = _index(truth, truth.objects), _index(truth, found)
    is_lvis = style == "lvis"
    run = COCOeval_faster(marked, detected, iouType=kind, lvis_style=is_lvis, separate_eval=True)
    run.params.maxDets = [*limits]
    run.params.useCats = int(use_categories)
    run.evaluate()
    run.accumulate()
    ids = tuple(int(one) for one in run.params.catIds) if use_categories else (-1,)
    return PrecisionTable(
        precision=np.asarray(run.eval["precision"], np.float64),
        recall=np.asarray(run.eval["recall"], np.float64),
        thresholds=np.asarray(run.params.iouThrs, np.float64),
        category_ids=ids,
        limits=tuple(limits),
    )


def keep_best(found: Sequence[CocoObject], limit: int) -> list[CocoObject]:
    """The `limit` objects of highest score in each image, over all categories; stable.

    LVIS counts 300 an image; the evaluation's own limit is by category.
    """
    by_image: dict[int, list[CocoObject]] = {}
    for one in found:
        by_image.setdefault(one["image_id"], []).append(one)
    return [
        one
        for objects in by_image.values()
        for one in sorted(objects, key=lambda one: -one["score"])[:limit]
    ]


def summarize_coco(table: PrecisionTable) -> dict[str, float | None]:
    """The twelve figures of COCO, in its order."""
    found = {
        "AP": table.mean_precision(),
        "AP50": table.mean_precision(iou=0.5),
        "AP75": table.mean_precision(iou=0.75),
    }
    found |= {f"AP{area[0]}": table.mean_precision(area=area) for area in AREAS[1:]}
    found |= {f"AR@{limit}": table.mean_recall(limit=limit) for limit in table.limits}
    return found | {f"AR{area[0]}": table.mean_recall(area=area) for area in AREAS[1:]}


def summarize_lvis(
    table: PrecisionTable, frequencies: Mapping[int, str]
) -> dict[str, float | None]:
    """The figures of LVIS; `frequencies` gives `r`, `c` or `f` of each category id."""
    found = {
        "AP": table.mean_precision(),
        "AP50": table.mean_precision(iou=0.5),
        "AP75": table.mean_precision(iou=0.75),
    }
    found |= {f"AP{area[0]}": table.mean_precision(area=area) for area in AREAS[1:]}
    for letter, name in (("r", "APr"), ("c", "APc"), ("f", "APf")):
        ids = frozenset(one for one, value in frequencies.items() if value == letter)
        found[name] = table.mean_precision(categories=ids)
    found[f"AR@{table.limits[-1]}"] = table.mean_recall()
    return found | {
        f"AR{area[0]}@{table.limits[-1]}": table.mean_recall(area=area) for area in AREAS[1:]
    }


def _index(truth: Truth, objects: Sequence[CocoObject]) -> COCO:
    """Copies, for the evaluation writes into what it is given."""
    return COCO(
        {
            "images": [{**one} for one in truth.images],
            "categories": [{**one} for one in truth.categories],
            "annotations": [{**one} for one in objects],
        }
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
