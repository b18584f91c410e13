"""Average precision of a COCO file of detections, whatever tool wrote it; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.average_precision import (
    COCO_LIMITS,
    LVIS_LIMIT,
    CocoObject,
    OverlapKind,
    PrecisionTable,
    Style,
    compute_precision,
    keep_best,
    summarize_coco,
    summarize_lvis,
)
from ovsam_cli.evaluation.detection_files import FoundFile, TruthFile, read_found, read_truth
from ovsam_cli.evaluation.splits import NameSplit

KINDS: tuple[OverlapKind, ...] = ("bbox", "segm")
AnyStyle = Literal["auto", "coco", "lvis"]
# Thresholds of IoU that curves are of; None is the mean of .50 to .95.
CURVES: dict[str, float | None] = {"IoU .50": 0.5, "IoU .75": 0.75, "IoU .50 to .95": None}


@dataclass(frozen=True, slots=True)
class PrecisionFigures:
    """Average precision of boxes or of masks.

    Attributes:
        kind: `bbox` or `segm`.
        figures: by name, as COCO or LVIS call them; None where there are no objects.
        by_category: mean precision of each category that has objects, by name.
        curves: precision at recalls of 0 to 1 in equal steps, mean over categories, by what they
            are of (`CURVES`); empty without objects.
    """

    kind: OverlapKind
    figures: dict[str, float | None]
    by_category: dict[str, float]
    curves: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class DetectionReport:
    """What a file of detections reaches.

    Attributes:
        truth, found: the files.
        style: whose rules.
        limits: most objects an image; of LVIS over all categories, of COCO by category.
        split_name: of the split into base and novel names, or None.
        parts: boxes, and masks where both files have them.
        num_cut: detections beyond LVIS's limit.
    """

    truth: TruthFile
    found: FoundFile
    style: Style
    limits: tuple[int, ...]
    split_name: str | None
    parts: tuple[PrecisionFigures, ...]
    num_cut: int


def evaluate_detections(
    labels: Path, ground_truth: Path, *, style: AnyStyle = "auto", split: str = "auto"
) -> DetectionReport:
    """Compare detections with ground truth.

    Args:
        labels: COCO file with scores, or a list of results.
        ground_truth: COCO or LVIS instances.
        style: whose rules; `auto` takes LVIS's where the ground truth is federated.
        split: vocabulary that says which names are base and novel; see `splits.find_split`.

    Raises:
        InputError: a file cannot be used, or the rules do not fit it.
    """
    truth = read_truth(ground_truth)
    return compare_found(truth, read_found(labels, truth), style=style, split=split)


def compare_found(
    truth: TruthFile, found: FoundFile, *, style: AnyStyle = "auto", split: str = "auto"
) -> DetectionReport:
    """The same for files that were read.

    Raises:
        InputError: the rules do not fit the ground truth.
    """
    chosen = _choose_style(truth, style)
    names = NameSplit.find(split, {one.id: one.name for one in truth.tables.categories})
    objects: Sequence[CocoObject] = found.objects
    if chosen == "lvis":
        objects = keep_best(objects, LVIS_LIMIT)
    has_masks = truth.has_masks and found.has_masks
    limits = (LVIS_LIMIT,) if chosen == "lvis" else COCO_LIMITS
    parts = [
        _compute_figures(truth, _with_area(objects, kind), kind, chosen, names)
        for kind in KINDS
        if kind == "bbox" or has_masks
    ]
    return DetectionReport(
        truth=truth,
        found=found,
        style=chosen,
        limits=limits,
        split_name=names.name,
        parts=tuple(parts),
        num_cut=len(found.objects) - len(objects),
    )


def _choose_style(truth: TruthFile, style: AnyStyle) -> Style:
    has_frequencies = all(one.frequency in ("r", "c", "f") for one in truth.tables.categories)
    is_lvis = truth.is_federated and has_frequencies
    if style == "auto":
        return "lvis" if is_lvis else "coco"
    if style == "lvis" and not is_lvis:
        raise InputError(
            f"{truth.path}: --style lvis needs neg_category_ids of every image and the frequency "
            "of every category, which LVIS's files have; leave --style out for COCO's rules"
        )
    return style


def _compute_figures(
    truth: TruthFile,
    objects: Sequence[CocoObject],
    kind: OverlapKind,
    style: Style,
    names: NameSplit,
) -> PrecisionFigures:
    limits = (LVIS_LIMIT,) if style == "lvis" else COCO_LIMITS
    table = compute_precision(truth.truth, objects, kind, style=style, limits=limits)
    categories = truth.tables.categories
    if style == "lvis":
        figures = summarize_lvis(table, {one.id: one.frequency for one in categories})
    else:
        figures = summarize_coco(table)
    figures |= summarize_split(table, names.kinds)
    by_category = table.by_category()
    return PrecisionFigures(
        kind=kind,
        figures=figures,
        by_category={
            one.name: value for one in categories if (value := by_category[one.id]) is not None
        },
        curves={name: table.curve(iou) for name, iou in CURVES.items()},
    )


def summarize_split(table: PrecisionTable, kinds: Mapping[int, int]) -> dict[str, float | None]:
    """AP and AP50 of base and of novel categories, and of both; empty without such a split."""
    groups = {"base": {1}, "novel": {2}, "base+novel": {1, 2}}
    found: dict[str, float | None] = {}
    if any(kinds.values()):
        for name, wanted in groups.items():
            ids = frozenset(number for number, kind in kinds.items() if kind in wanted)
            found[f"AP {name}"] = table.mean_precision(categories=ids)
            found[f"AP50 {name}"] = table.mean_precision(categories=ids, iou=0.5)
    return found


def _with_area(objects: Sequence[CocoObject], kind: OverlapKind) -> Sequence[CocoObject]:
    """An object is small or large by what is compared: its box or its mask."""
    if kind == "segm":
        return objects
    return [{**one, "area": one["bbox"][2] * one["bbox"][3]} for one in objects]
