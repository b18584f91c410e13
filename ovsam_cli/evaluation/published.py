"""The paper's own numbers, to be shown beside ours; data only, no torch."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Yuan et al., Open-Vocabulary SAM, arXiv 2401.02955v2"
SOURCE = f"{PAPER}, Table 1"
SOURCE_NAMES = f"{PAPER}, Table 2: boxes of Detic, names of the method"
SOURCE_MASKS = f"{PAPER}, Table 4: boxes and names of the detector, COCO"
SOURCE_MASKS_LVIS = (
    f"{PAPER}, supplement, Table S2: boxes and names of the detector, LVIS; not all its columns"
)


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


@dataclass(frozen=True, slots=True)
class PublishedPrecision:
    """A row of Table 2, 4 or S2: mask average precision in percent.

    Attributes:
        method: as the paper calls it, and whose boxes.
        values: in the order of the table's figures; None for one that we do not know.
    """

    method: str
    values: tuple[float | None, ...]


# Our names of the columns. The paper's AP of COCO is over its 48 base and 17 novel names: the mean
# of both columns weighted by their numbers is 32.4.
TABLE_2_FIGURES = {
    "coco": ("AP base", "AP novel", "AP base+novel"),
    "lvis": ("APr", "APc", "APf", "AP"),
}
TABLE_2 = {
    "coco": (
        PublishedPrecision("Image-Crop + CoOp", (26.2, 31.2, 27.3)),
        PublishedPrecision("Feature-Crop + CoOp", (28.0, 33.8, 29.5)),
        PublishedPrecision("Open-Vocabulary SAM", (31.1, 36.0, 32.4)),
    ),
    "lvis": (
        PublishedPrecision("Image-Crop + CoOp", (19.8, 18.3, 16.3, 17.2)),
        PublishedPrecision("Feature-Crop + CoOp", (24.2, 21.4, 18.6, 20.8)),
        PublishedPrecision("Open-Vocabulary SAM", (24.0, 21.3, 22.9, 22.4)),
    ),
}
TABLE_4_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
TABLE_4 = (
    PublishedPrecision("SAM-H, Faster R-CNN R50", (35.6, 54.9, 38.4, 17.2, 39.1, 51.4)),
    PublishedPrecision(
        "Open-Vocabulary SAM, Faster R-CNN R50", (35.8, 55.6, 38.3, 16.0, 38.9, 53.1)
    ),
    PublishedPrecision("Open-Vocabulary SAM, Detic Swin-B", (36.7, 57.2, 39.7, 20.7, 40.8, 54.9)),
    PublishedPrecision("SAM-H, ViTDet-H", (46.3, 72.0, 49.8, 25.2, 45.5, 59.6)),
    PublishedPrecision("Open-Vocabulary SAM, ViTDet-H", (48.8, 73.8, 52.9, 24.8, 46.3, 64.2)),
)

TABLE_S2_FIGURES = ("AP", "APr", "APs")
TABLE_S2 = (
    PublishedPrecision("SAM-H, Detic Swin-B", (43.5, None, 31.4)),
    PublishedPrecision("Open-Vocabulary SAM, Detic Swin-B", (42.6, None, 29.7)),
    PublishedPrecision("SAM-H, ViTDet-H", (44.5, 34.6, None)),
    PublishedPrecision("TAP-L, ViTDet-H", (42.6, 33.3, None)),
    PublishedPrecision("Open-Vocabulary SAM, ViTDet-H", (44.0, 34.5, None)),
)


def find_published(split: str | None, prompt: str, baseline: str) -> PublishedFigures | None:
    """The row of Table 1 that an evaluation is to be held against; None where there is none.

    Args:
        split: `coco` or `lvis`.
        prompt: `box` or `point`.
        baseline: `image-crop`, `feature-crop`, or empty for the model itself.
    """
    return TABLE_1.get((split or "", prompt, baseline))
