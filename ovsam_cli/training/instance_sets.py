"""Training sets: images with objects, whose names are rows of one vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ovsam_cli.evaluation.datasets import InstanceDataset
from ovsam_cli.structures import IntArray, Rle
from ovsam_cli.vocabulary import Vocabulary, clean_names, normalize_name

NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """One image and its objects.

    Attributes:
        path: of the image.
        original_hw: as the annotations say.
        segmentations: (n,) original frame.
        labels: (n,) int64 rows of the vocabulary; -1 for objects without a class.
    """

    path: Path
    original_hw: tuple[int, int]
    segmentations: tuple[Rle, ...]
    labels: IntArray


class TrainingSet(Protocol):
    """Images by number; read in loader processes, so it is picklable and small."""

    def __len__(self) -> int:
        """Number of images."""

    def path(self, number: int) -> Path:
        """Of image `number`."""

    def read(self, number: int) -> LabeledImage:
        """Image `number` with its objects.

        Raises:
            ImageError: its annotations cannot be read.
        """


class PackedSet:
    """An instance data set in a few arrays, which loader processes share without copying.

    Images without objects are left out.

    Args:
        dataset: as read from its file.
        row_of_category: vocabulary row, or -1, of each category id; others are left out.
    """

    def __init__(self, dataset: InstanceDataset, row_of_category: Mapping[int, int]) -> None:
        self.paths: list[str] = []
        sizes: list[tuple[int, int]] = []
        counts: list[bytes] = []
        labels: list[int] = []
        starts = [0]
        for image in dataset.images:
            kept = [one for one in image.instances if one.category_id in row_of_category]
            if not kept:
                continue
            self.paths.append(str(image.path))
            sizes.append(image.original_hw)
            counts += [one.segmentation["counts"].encode("ascii") for one in kept]
            labels += [row_of_category[one.category_id] for one in kept]
            starts.append(len(labels))
        self.sizes = np.asarray(sizes, np.int32).reshape(-1, 2)
        self.labels = np.asarray(labels, np.int32)
        self.starts = np.asarray(starts, np.int64)
        self.ends = np.cumsum([len(one) for one in counts], dtype=np.int64)
        self.counts = b"".join(counts)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def path(self, number: int) -> Path:
        """Of image `number`."""
        return Path(self.paths[number])

    def read(self, number: int) -> LabeledImage:
        """Image `number` with its objects."""
        height, width = self.sizes[number].tolist()
        first, last = self.starts[number], self.starts[number + 1]
        segmentations = []
        for row in range(first, last):
            begin = self.ends[row - 1] if row else 0
            text = self.counts[begin : self.ends[row]].decode("ascii")
            segmentations.append(Rle(size=[height, width], counts=text))
        return LabeledImage(
            path=Path(self.paths[number]),
            original_hw=(height, width),
            segmentations=tuple(segmentations),
            labels=self.labels[first:last].astype(np.int64),
        )


@dataclass(frozen=True, slots=True)
class CategoryRows:
    """Where a data set's categories stand in a vocabulary.

    Attributes:
        rows: row of each category id, -1 for names the vocabulary has not; excluded ids are not
            there.
        unknown: the names that it has not.
    """

    rows: Mapping[int, int]
    unknown: tuple[str, ...]


def match_categories(
    category_names: Mapping[int, str], vocabulary: Vocabulary, only: Vocabulary | None = None
) -> CategoryRows:
    """Find each category's row by its name or a synonym, whatever the spelling.

    Args:
        category_names: of each id.
        vocabulary: whose rows are wanted.
        only: of this vocabulary only base categories are used, all others are left out.
    """
    row_of_name = _index_names(vocabulary, range(len(vocabulary)))
    allowed = None
    if only is not None:
        base = [row for row, category in enumerate(only.categories) if category.base]
        allowed = _index_names(only, base)
    rows, unknown = {}, []
    for category_id, name in category_names.items():
        if allowed is not None and _find_row(name, allowed) is None:
            continue
        row = _find_row(name, row_of_name)
        rows[category_id] = NO_LABEL if row is None else row
        if row is None:
            unknown.append(name)
    return CategoryRows(rows, tuple(unknown))


def _index_names(vocabulary: Vocabulary, rows: Sequence[int]) -> dict[str, int]:
    """Row of every normalized name; a category's own name goes before another's synonym."""
    found: dict[str, int] = {}
    for row in rows:
        found.setdefault(normalize_name(vocabulary.categories[row].name), row)
    for row in rows:
        for synonym in vocabulary.categories[row].synonyms:
            found.setdefault(normalize_name(synonym), row)
    return found


def _find_row(name: str, row_of_name: Mapping[str, int]) -> int | None:
    for spelling in (normalize_name(name), *clean_names(name)):
        if spelling in row_of_name:
            return row_of_name[spelling]
    return None
