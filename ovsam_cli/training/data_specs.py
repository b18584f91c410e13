"""What `--data` names: COCO and LVIS files, folders of scenes, SA-1B."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.datasets import (
    InstanceDataset,
    check_image_files,
    read_instance_folder,
    read_instances,
)
from ovsam_cli.model.unpickling import compute_sha256
from ovsam_cli.training.instance_batches import WeightedSet
from ovsam_cli.training.instance_sets import PackedSet, TrainingSet, match_categories
from ovsam_cli.training.recipes import ClassSplit
from ovsam_cli.training.sa1b import IMAGE_PATTERN, Sa1bSet
from ovsam_cli.training.scenes.sidecars import UNNAMED
from ovsam_cli.vocabulary import (
    Category,
    Vocabulary,
    clean_names,
    normalize_name,
    read_vocabulary,
)

# Whose base categories each split keeps, and how a model trained on them says so.
SPLITS: dict[ClassSplit, tuple[str, str]] = {
    "coco48": ("coco", "coco:base"),
    "lvis-norare": ("lvis", "lvis:base"),
}
LAYOUTS = (
    "a folder with instances.json and images/, ANNOTATIONS.json:IMAGES, or a folder with "
    f"{IMAGE_PATTERN} and sa_*.json"
)
NUM_SHOWN_NAMES = 8


@dataclass(frozen=True, slots=True)
class DataSpec:
    """One `--data`.

    Attributes:
        place: a folder, or an annotation file.
        images: folder of the annotation file's images; None for a folder.
        weight: how often it is drawn.
    """

    place: Path
    images: Path | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All that is trained on.

    Attributes:
        sets: with their weights.
        vocabulary: whose rows the labels are.
        trained_on: for the model's config: names, or a split such as `coco:base`.
        num_images: in all sets together.
        digests: SHA-256 of each place's annotation file, or of its list of images.
    """

    sets: tuple[WeightedSet, ...]
    vocabulary: Vocabulary
    trained_on: tuple[str, ...]
    num_images: int
    digests: Mapping[str, str]


def parse_data_spec(text: str) -> DataSpec:
    """Read FOLDER, FOLDER=WEIGHT, FILE.json:IMAGES or FILE.json:IMAGES=WEIGHT.

    Raises:
        InputError: the weight is no positive number.
    """
    source, equals, number = text.rpartition("=")
    weight = 1.0
    if not equals or Path(text).exists():
        source = text
    else:
        try:
            weight = float(number)
        except ValueError:
            raise InputError(
                f"--data {text}: {number!r} is no number; write {source}=WEIGHT"
            ) from None
        if not 0 < weight < math.inf:
            raise InputError(f"--data {text}: the weight must be greater than 0, and finite")
    file, colon, images = source.partition(".json:")
    if colon:
        return DataSpec(Path(f"{file}.json"), Path(images), weight)
    if source.endswith(".json"):
        raise InputError(f"--data {text}: give its images too: {source}:IMAGES")
    return DataSpec(Path(source), None, weight)


def open_training_data(
    specs: Sequence[DataSpec],
    vocabulary: Vocabulary | None,
    classes: ClassSplit,
    on_message: Callable[[str], None],
) -> TrainingData:
    """Read all annotations, and find every category's row in the vocabulary.

    Args:
        specs: what to read.
        vocabulary: whose rows become the labels; None for the names of the data sets themselves.
        classes: "coco48" and "lvis-norare" keep the base categories of those data sets; the
            annotations of others are removed.
        on_message: told how many images there are and which names the vocabulary lacks.

    Raises:
        InputError: something is not there, or not of a known layout.
    """
    only = read_vocabulary(SPLITS[classes][0]) if classes in SPLITS else None
    datasets = [_open(spec) for spec in specs]
    if vocabulary is None:
        vocabulary = _gather_names(one for one in datasets if isinstance(one, InstanceDataset))
    sets, rows, digests = [], set[int](), dict[str, str]()
    for spec in specs:
        opened = datasets.pop(0)  # once packed, the objects go
        images: TrainingSet
        if isinstance(opened, InstanceDataset):
            images = packed = _pack(opened, vocabulary, only, on_message)
            rows |= set(np.unique(packed.labels[packed.labels >= 0]).tolist())
            digests[str(spec.place)] = compute_sha256(opened.source)
            if not len(images) and only is not None:
                raise InputError(f"--data {spec.place}: {_explain_filter(opened, classes)}")
        else:
            images = opened
            digests[str(spec.place)] = opened.images.sha256()
            if opened.without_masks:
                on_message(
                    f"{spec.place}: {opened.without_masks:,} images without masks beside them are "
                    "skipped when their turn comes; skipped.jsonl will name them"
                )
        on_message(f"{spec.place}: {len(images):,} images with objects")
        sets.append(WeightedSet(images, spec.weight))
    names = tuple(vocabulary.categories[row].name for row in sorted(rows))
    return TrainingData(
        sets=tuple(sets),
        vocabulary=vocabulary,
        trained_on=(SPLITS[classes][1],) if classes in SPLITS and names else names,
        num_images=sum(len(one.images) for one in sets),
        digests=digests,
    )


def _explain_filter(dataset: InstanceDataset, classes: ClassSplit) -> str:
    """Why a data set is empty whose annotations the choice of classes removes."""
    count = sum(len(image.instances) for image in dataset.images)
    names = ", ".join([*dataset.category_names.values()][:NUM_SHOWN_NAMES])
    return (
        f"of {count:,} annotations ({names}) none is of a base category of "
        f"{SPLITS[classes][0].upper()}, which alone --classes {classes} keeps; this is the "
        "default of --recipe coco and lvis. Give --classes all to use every annotation"
    )


def _open(spec: DataSpec) -> InstanceDataset | Sa1bSet:
    if spec.images is not None:
        dataset = read_instances(spec.place, spec.images)
    elif (spec.place / "instances.json").exists():
        dataset = read_instance_folder(spec.place)
    else:
        return _open_sa1b(spec.place)
    check_image_files(dataset)
    return dataset


def _gather_names(datasets: Iterable[InstanceDataset]) -> Vocabulary:
    """Every name of the data sets, once; what scenes call their unnamed objects is none."""
    found: dict[str, Category] = {}
    for dataset in datasets:
        for name in dataset.category_names.values():
            if name == UNNAMED:
                continue
            category = Category(len(found) + 1, name, clean_names(name))
            found.setdefault(normalize_name(name), category)
    return Vocabulary("data", tuple(found.values()), source="names of the training data")


def _pack(
    dataset: InstanceDataset,
    vocabulary: Vocabulary,
    only: Vocabulary | None,
    on_message: Callable[[str], None],
) -> PackedSet:
    found = match_categories(dataset.category_names, vocabulary, only)
    if found.unknown:
        shown = ", ".join(found.unknown[:NUM_SHOWN_NAMES])
        more = ", ..." if len(found.unknown) > NUM_SHOWN_NAMES else ""
        on_message(
            f"{dataset.source}: {len(found.unknown)} of {len(dataset.category_names)} names are "
            f"not in the vocabulary {vocabulary.name}: their masks are learned, not their names "
            f"({shown}{more})"
        )
    return PackedSet(dataset, found.rows)


def _open_sa1b(folder: Path) -> Sa1bSet:
    if not folder.is_dir():
        raise InputError(f"--data {folder}: no such folder; give {LAYOUTS}")
    if next(folder.rglob(IMAGE_PATTERN), None) is None:
        raise InputError(
            f"--data {folder}: neither {folder / 'instances.json'} nor {IMAGE_PATTERN} is there; "
            f"give {LAYOUTS}"
        )
    return Sa1bSet(folder)
