"""`ovsam eval grid`: how many objects the automatic mode finds, and how well it names them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.average_precision import AREAS, CocoObject, compute_precision
from ovsam_cli.evaluation.dataset_places import DatasetPlace, check_images, find_dataset
from ovsam_cli.evaluation.detection_files import TruthFile, read_found, read_truth
from ovsam_cli.evaluation.detections import DetectionReport, compare_found
from ovsam_cli.evaluation.instance_store import InstanceStore
from ovsam_cli.evaluation.splits import NameSplit
from ovsam_cli.labelling.options import GridOptions, LabelOptions, LabelRequest
from ovsam_cli.structures import ImageRecord

LABELS_FOLDER = "labels"
RECALL_LIMITS = (100, 1000)


@dataclass(frozen=True, slots=True)
class GridRequest:
    """Everything `ovsam eval grid` was asked for.

    Attributes:
        dataset, images: see `dataset_places.find_dataset`.
        out: folder for metrics.json; the labels go into its folder `labels`.
        model, devices, dtype: as of `ovsam label`.
        vocabulary: names; None takes the data set's own.
        grid: points, crops and overlap.
        split: base and novel names.
        max_images: the first ones that have objects; None takes all.
        restart, overwrite: as of `ovsam label`.
    """

    dataset: str
    images: Path | None
    out: Path
    model: str = "rn50x16"
    devices: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    vocabulary: str | None = None
    grid: GridOptions = field(default_factory=GridOptions)
    split: str = "auto"
    max_images: int | None = None
    restart: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class GridPlan:
    """A request whose parts were found: what to label, and the truth of just these images."""

    request: GridRequest
    label: LabelRequest
    truth: TruthFile
    num_images: int


@dataclass(frozen=True, slots=True)
class GridReport:
    """What the automatic mode reaches.

    Attributes:
        plan: what was asked for.
        recall: average recall of masks whatever their names, by limit and area.
        num_masks: found in all images together.
        named: average precision with names.
    """

    plan: GridPlan
    recall: dict[str, float | None]
    num_masks: int
    named: DetectionReport


def plan_grid(request: GridRequest) -> GridPlan:
    """Find the data set, and say what `ovsam label` has to do.

    Raises:
        InputError: a file or an image is missing, or has no masks.
    """
    place = find_dataset(request.dataset, request.images)
    if place.is_sa1b:
        raise InputError(
            f"{request.dataset}: SA-1B's objects have no names and are no COCO file; "
            "`ovsam eval prompted` measures masks on them"
        )
    store = InstanceStore(
        place.annotations, place.images, max_images=request.max_images, keeps_empty=True
    )
    check_images(store.records, str(place.annotations))
    truth = restrict_truth(read_truth(place.annotations), store.records)
    if not truth.has_masks:
        raise InputError(f"{place.annotations}: some objects have no mask; recall is of masks")
    label = LabelRequest(
        images=tuple(str(record.path) for record in store.records),
        vocabulary=request.vocabulary or _own_names(request, place, store),
        out=request.out / LABELS_FOLDER,
        model=request.model,
        devices=request.devices,
        restart=request.restart,
        overwrite=request.overwrite,
        options=LabelOptions(dtype=request.dtype, grid=request.grid, top_k=0),
    )
    return GridPlan(request, label, truth, len(store.records))


def restrict_truth(truth: TruthFile, records: tuple[ImageRecord, ...]) -> TruthFile:
    """The part of the ground truth that is of some images."""
    ids = {record.image_id for record in records}
    inner, tables = truth.truth, truth.tables
    return replace(
        truth,
        truth=replace(
            inner,
            images=tuple(one for one in inner.images if one["id"] in ids),
            objects=tuple(one for one in inner.objects if one["image_id"] in ids),
        ),
        tables=replace(tables, images=tuple(o for o in tables.images if o.image_id in ids)),
    )


def compare_grid(plan: GridPlan, annotations: Path) -> GridReport:
    """Compare what was found with the truth.

    Args:
        plan: from `plan_grid`.
        annotations: COCO file of the labelled images.

    Raises:
        InputError: it is of other images.
    """
    found = read_found(annotations, plan.truth)
    ranked: list[CocoObject] = [
        {**one, "score": quality}
        for one, quality in zip(found.objects, found.qualities, strict=True)
    ]
    table = compute_precision(
        plan.truth.truth, ranked, "segm", use_categories=False, limits=RECALL_LIMITS
    )
    recall = {
        f"AR{'' if area == 'all' else area[0]}@{limit}": table.mean_recall(area=area, limit=limit)
        for limit in RECALL_LIMITS
        for area in AREAS
    }
    return GridReport(
        plan=plan,
        recall=recall,
        num_masks=len(found.objects),
        named=compare_found(plan.truth, found, split=plan.request.split),
    )


def _own_names(request: GridRequest, place: DatasetPlace, store: InstanceStore) -> str:
    """The bundled names of COCO or LVIS for their data, else the categories of the file."""
    split = NameSplit.find("auto", store.category_names)
    return split.name if split.name is not None else str(place.annotations)
