"""What `--data` names: COCO and LVIS files, folders of scenes, SA-1B."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.datasets import check_image_files, read_instance_folder, read_instances
from ovsam_cli.training.instance_batches import WeightedSet
from ovsam_cli.training.instance_sets import PackedSet, match_categories
from ovsam_cli.training.recipes import ClassSplit
from ovsam_cli.training.sa1b import IMAGE_PATTERN, Sa1bSet
from ovsam_cli.vocabulary import Vocabulary, read_vocabulary

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
        trained_on: for the model's config: names, or a split such as `coco:base`.
        num_images: in all sets together.
    """

    sets: tuple[WeightedSet, ...]
    trained_on: tuple[str, ...]
    num_images: int


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
        if not weight > 0:
            raise InputError(f"--data {text}: the weight must be greater than 0")
    file, colon, images = source.partition(".json:")
    if colon:
        return DataSpec(Path(f"{file}.json"), Path(images), weight)
    if source.endswith(".json"):
        raise InputError(f"--data {text}: give its images too: {source}:IMAGES")
    return DataSpec(Path(source), None, weight)


def open_training_data(
    specs: Sequence[DataSpec],
    vocabulary: Vocabulary,
    classes: ClassSplit,
    on_message: Callable[[str], None],
) -> TrainingData:
    """Read all annotations, and find every category's row in the vocabulary.

    Args:
        specs: what to read.
        vocabulary: whose rows become the labels.
        classes: "coco48" and "lvis-norare" keep the base categories of those data sets; the
            annotations of others are removed.
        on_message: told how many images there are and which names the vocabulary lacks.

    Raises:
        InputError: something is not there, or not of a known layout.
    """
    only = read_vocabulary(SPLITS[classes][0]) if classes in SPLITS else None
    sets, rows = [], set[int]()
    for spec in specs:
        if spec.images is None and not (spec.place / "instances.json").exists():
            sets.append(WeightedSet(_open_sa1b(spec.place), spec.weight))
            continue
        packed = _open_instances(spec, vocabulary, only, on_message)
        sets.append(WeightedSet(packed, spec.weight))
        rows |= set(np.unique(packed.labels[packed.labels >= 0]).tolist())
    for spec, one in zip(specs, sets, strict=True):
        on_message(f"{spec.place}: {len(one.images):,} images with objects")
    names = tuple(vocabulary.categories[row].name for row in sorted(rows))
    trained_on = (SPLITS[classes][1],) if classes in SPLITS and names else names
    return TrainingData(tuple(sets), trained_on, sum(len(one.images) for one in sets))


def _open_instances(
    spec: DataSpec,
    vocabulary: Vocabulary,
    only: Vocabulary | None,
    on_message: Callable[[str], None],
) -> PackedSet:
    if spec.images is None:
        dataset = read_instance_folder(spec.place)
    else:
        dataset = read_instances(spec.place, spec.images)
    check_image_files(dataset)
    found = match_categories(dataset.category_names, vocabulary, only)
    if found.unknown:
        shown = ", ".join(found.unknown[:NUM_SHOWN_NAMES])
        more = ", ..." if len(found.unknown) > NUM_SHOWN_NAMES else ""
        on_message(
            f"{spec.place}: {len(found.unknown)} of {len(dataset.category_names)} names are not in "
            f"the vocabulary {vocabulary.name}: their masks are learned, not their names ({shown}"
            f"{more})"
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
