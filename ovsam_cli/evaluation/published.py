"""The paper's own numbers, to be shown beside ours; data only, no torch."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "Yuan et al., Open-Vocabulary SAM, arXiv 2401.02955v2, Table 1"


@dataclass(frozen=True, slots=True)
class PublishedFigures:
    """A row of Table 1: shares in percent.

    Attributes:
        method: as the paper calls it.
        base_iou, novel_iou: mean mask IoU of base and novel names.
        accuracy: of names, all of them together.
    """

    method: str
    base_iou: float
    novel_iou: float
    accuracy: float


# By data set, prompt and method; the method is our --baseline, or empty for the model itself.
TABLE_1 = {
    ("coco", "box", "image-crop"): PublishedFigures("Image-Crop (SAM-H)", 78.1, 81.4, 46.2),
    ("coco", "box", "feature-crop"): PublishedFigures("Feature-Crop (SAM-H)", 78.1, 81.4, 55.1),
    ("coco", "box", ""): PublishedFigures("Open-Vocabulary SAM", 81.5, 84.0, 84.3),
    ("coco", "point", "image-crop"): PublishedFigures("Image-Crop (SAM-H)", 60.7, 66.7, 24.5),
    ("coco", "point", "feature-crop"): PublishedFigures("Feature-Crop (SAM-H)", 60.7, 66.7, 32.1),
    ("coco", "point", ""): PublishedFigures("Open-Vocabulary SAM", 68.4, 65.2, 76.7),
    ("lvis", "box", "image-crop"): PublishedFigures("Image-Crop (SAM-H)", 78.3, 81.6, 9.6),
    ("lvis", "box", "feature-crop"): PublishedFigures("Feature-Crop (SAM-H)", 78.3, 81.6, 26.5),
    ("lvis", "box", ""): PublishedFigures("Open-Vocabulary SAM", 80.4, 83.1, 66.6),
    ("lvis", "point", "image-crop"): PublishedFigures("Image-Crop (SAM-H)", 53.0, 62.3, 6.2),
    ("lvis", "point", "feature-crop"): PublishedFigures("Feature-Crop (SAM-H)", 53.0, 62.3, 11.0),
    ("lvis", "point", ""): PublishedFigures("Open-Vocabulary SAM", 63.6, 67.9, 60.4),
}


def find_published(split: str | None, prompt: str, baseline: str) -> PublishedFigures | None:
    """The row of Table 1 that an evaluation is to be held against; None where there is none.

    Args:
        split: `coco` or `lvis`.
        prompt: `box` or `point`.
        baseline: `image-crop`, `feature-crop`, or empty for the model itself.
    """
    return TABLE_1.get((split or "", prompt, baseline))
