"""Boxes of a detector as prompts, its scores kept: the protocol of the paper's Tables 2 and 4.

Masks of all boxes are made by `ovsam label`; each is then counted twice, under the detector's own
name (Table 4: how good the masks are) and under ours (Table 2: how good the names are as well).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.coco_entries import (
    iter_annotations,
    open_coco,
    read_tables,
)
from ovsam_cli.evaluation.dataset_places import check_images, find_dataset
from ovsam_cli.evaluation.detection_files import FoundFile, TruthFile, read_found, read_truth
from ovsam_cli.evaluation.detections import DetectionReport, compare_found
from ovsam_cli.evaluation.grid_recall import LABELS_FOLDER, restrict_truth
from ovsam_cli.evaluation.instance_store import InstanceStore
from ovsam_cli.evaluation.prompted_options import PromptedRequest
from ovsam_cli.evaluation.splits import NameSplit
from ovsam_cli.image_paths import find_images
from ovsam_cli.labelling.options import LabelOptions, LabelRequest
from ovsam_cli.outputs.coco_values import Entry, as_entry, read_integer
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.structures import ImageRecord
from ovsam_cli.vocabulary import normalize_name

PROMPTS_FILE = "boxes.jsonl"
# Table 4 takes the detector's names, Table 2 ours.
RESULT_FILES = (("results-detector-names.json", False), ("results-own-names.json", True))
FOUND_WHAT, FOUND_EXAMPLE = "COCO file of labels", "labels/annotations.json"


@dataclass(frozen=True, slots=True)
class BoxesPlan:
    """Boxes that were read, and what `ovsam label` has to do with them.

    Attributes:
        request: what was asked for.
        label: the run; its prompt file is written by `write_prompts`.
        truth: of the images that are labelled.
        paths: of each image id.
        boxes: of the detector; the prompt of `boxes.objects[n]` has the id n + 1.
    """

    request: PromptedRequest
    label: LabelRequest
    truth: TruthFile
    paths: dict[int, Path]
    boxes: FoundFile


@dataclass(frozen=True, slots=True)
class BoxesReport:
    """Average precision of the same masks and scores under two names each."""

    plan: BoxesPlan
    detector_names: DetectionReport
    own_names: DetectionReport


def plan_boxes(request: PromptedRequest, boxes: Path) -> BoxesPlan:
    """Find the data set and read the boxes.

    Raises:
        InputError: a file or an image is missing, or an option does not go with boxes.
    """
    if request.protocol == "paper" or request.baseline != "none" or request.click is not None:
        raise InputError(
            "--boxes: a detector makes the prompts; leave out --protocol, --baseline and --click"
        )
    place = find_dataset(request.dataset, request.images)
    if place.is_sa1b:
        raise InputError(f"{request.dataset}: SA-1B has no names to compare a detector's with")
    store = InstanceStore(
        place.annotations, place.images, max_images=request.max_images, keeps_empty=True
    )
    check_images(store.records, str(place.annotations))
    whole = read_truth(place.annotations)
    found = read_found(boxes, whole, skipped=_name_skipped(whole, store.records))
    split = NameSplit.find("auto", store.category_names)
    label = LabelRequest(
        images=tuple(str(record.path) for record in store.records),
        vocabulary=request.vocabulary or split.name or str(place.annotations),
        out=request.out / LABELS_FOLDER,
        prompts=str(request.out / PROMPTS_FILE),
        model=request.model,
        devices=request.devices,
        text_embeddings=request.text_embeddings,
        base_names=request.base_names,
        restart=request.restart,
        overwrite=request.overwrite,
        options=LabelOptions(
            batch_size=request.batch_size, dtype=request.dtype, fusion=request.fusion, top_k=0
        ),
    )
    paths = {record.image_id: Path(record.path) for record in store.records}
    return BoxesPlan(request, label, restrict_truth(whole, store.records), paths, found)


def _name_skipped(whole: TruthFile, records: Sequence[ImageRecord]) -> dict[int, str]:
    """Why each image that is not labelled is not."""
    kept = {record.image_id for record in records}
    return {
        image.image_id: "of images beyond --max-images"
        for image in whole.tables.images
        if image.image_id not in kept
    }


def write_prompts(plan: BoxesPlan) -> None:
    """Write the prompt file of a plan, an image a line.

    Raises:
        OutputError: it cannot be written.
    """
    names = {Path(record.path): record.file_name for record in find_images(plan.label.images)}
    by_image: dict[int, list[dict[str, object]]] = {}
    for number, one in enumerate(plan.boxes.objects, 1):
        left, top, width, height = one["bbox"]
        box = [left, top, left + width, top + height]
        prompt = {"id": number, "box": box, "score": one["score"]}
        by_image.setdefault(one["image_id"], []).append(prompt)
    plan.request.out.mkdir(parents=True, exist_ok=True)
    with write_whole_file(plan.request.out / PROMPTS_FILE) as file:
        for image_id, prompts in by_image.items():
            line = {"file_name": names[plan.paths[image_id]], "prompts": prompts}
            file.write(json.dumps(line).encode() + b"\n")


def compare_boxes(plan: BoxesPlan, annotations: Path) -> BoxesReport:
    """Compare the masks of the boxes with the truth, under both names.

    Both lists of results stay in the output folder, for other tools.

    Args:
        plan: from `plan_boxes`.
        annotations: COCO file of the labelled boxes.

    Raises:
        InputError: it cannot be read.
        OutputError: a list of results cannot be written.
    """
    reports = []
    for file_name, own_names in RESULT_FILES:
        path = plan.request.out / file_name
        _write_results(path, _iter_results(plan, annotations, own_names=own_names))
        found = read_found(path, plan.truth)
        reports.append(compare_found(plan.truth, found, split=plan.request.split))
    return BoxesReport(plan, detector_names=reports[0], own_names=reports[1])


def _iter_results(plan: BoxesPlan, annotations: Path, *, own_names: bool) -> Iterator[Entry]:
    """Masks with the detector's scores; names that the ground truth has not are left out."""
    categories = plan.truth.tables.categories
    known = {normalize_name(one.name): one.id for one in categories}
    with open_coco(annotations, FOUND_WHAT, FOUND_EXAMPLE) as stream:
        said = read_tables(stream).category_names
        for entry in iter_annotations(stream):
            box = plan.boxes.objects[_prompt_number(entry) - 1]
            category_id: int | None = box["category_id"]
            if own_names:
                category_id = known.get(normalize_name(said[read_integer(entry, "category_id")]))
            if category_id is not None:
                yield {
                    "image_id": box["image_id"],
                    "category_id": category_id,
                    "segmentation": entry["segmentation"],
                    "bbox": entry["bbox"],
                    "score": box["score"],
                }


def _write_results(path: Path, results: Iterable[Entry]) -> None:
    with write_whole_file(path) as file:
        file.write(b"[")
        for number, one in enumerate(results):
            file.write((b",\n" if number else b"\n") + json.dumps(one).encode())
        file.write(b"\n]\n")


def _prompt_number(entry: Entry) -> int:
    return read_integer(as_entry(entry["attributes"]), "prompt_id")
