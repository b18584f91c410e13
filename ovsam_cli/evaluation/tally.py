"""All figures of an evaluation from a stream of rows; no torch."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from ovsam_cli.evaluation.bootstrap import Estimate
from ovsam_cli.evaluation.calibration import NUM_BINS, Calibration, CalibrationCounts
from ovsam_cli.evaluation.instance_rows import ImageRow, InstanceRow
from ovsam_cli.evaluation.metrics import LARGE_AREA, SMALL_AREA
from ovsam_cli.evaluation.splits import BASE, NOVEL, NameSplit
from ovsam_cli.evaluation.streamed_means import StreamedMeans
from ovsam_cli.structures import IntArray

NUM_IOU_BINS = 20
NUM_WORST, NUM_CONFUSIONS = 50, 30
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
ALL = "all"


@dataclass(frozen=True, slots=True)
class WorstCase:
    """An object whose mask is among the worst."""

    row: ImageRow  # of its image, without the other objects
    instance: InstanceRow


@dataclass(frozen=True, slots=True)
class Figures:
    """What an evaluation found.

    Attributes:
        num_images, num_instances, num_named: images and objects that were answered, and objects
            whose name competes.
        failures: (file name, message) of the images that failed.
        estimates: by `metric|group`; metrics are `iou`, `boundary_iou`, `top1 RULE`, `top5 RULE`;
            groups `all`, `small`, `medium`, `large`, `base`, `novel`, `rare`, `common`, `frequent`.
        iou_histogram: (20,) objects by IoU.
        calibration: of the first rule's scores; None without names.
        confusions: (true name, said name, objects), the commonest first.
        majority: share of the commonest name among the named objects; nan without any.
        worst: lowest IoU first.
    """

    num_images: int
    num_instances: int
    num_named: int
    failures: tuple[tuple[str, str], ...]
    estimates: dict[str, Estimate]
    iou_histogram: IntArray
    calibration: Calibration | None
    confusions: tuple[tuple[str, str, int], ...]
    majority: float
    worst: tuple[WorstCase, ...]


@dataclass(frozen=True, slots=True)
class TallyContext:
    """What rows mean.

    Attributes:
        category_names: of each category id of the data set.
        vocabulary_names: (K,) names that were said.
        rank_keys: names of the rules, in the order of a row's ranks.
        split: base and novel, frequencies.
    """

    category_names: Mapping[int, str]
    vocabulary_names: tuple[str, ...]
    rank_keys: tuple[str, ...]
    split: NameSplit


@dataclass(slots=True)
class _Counts:
    images: int = 0
    instances: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    names: Counter[int] = field(default_factory=Counter)
    confusions: Counter[tuple[int, int]] = field(default_factory=Counter)


def tally_rows(rows: Iterable[ImageRow], context: TallyContext) -> Figures:
    """Add up rows; what is kept does not grow with their number.

    Args:
        rows: of all images, in a fixed order, for the intervals depend on it.
        context: what they mean.
    """
    means, counts = StreamedMeans(), _Counts()
    histogram: IntArray = np.zeros(NUM_IOU_BINS, np.int64)
    bins = CalibrationCounts(NUM_BINS)
    worst: list[tuple[float, int, WorstCase]] = []
    order = count()
    for row in rows:
        if row.reason:
            counts.failures.append((row.record.file_name, row.message))
            continue
        counts.images += 1
        means.add_image(_iter_values(row, context))
        for one in row.instances:
            counts.instances += 1
            histogram[min(int(one.iou * NUM_IOU_BINS), NUM_IOU_BINS - 1)] += 1
            _count_names(one, context, counts, bins)
            case = WorstCase(ImageRow(row.record), one)
            # A heap of the worst with the best of them on top; equals by their order.
            heapq.heappush(worst, (-one.iou, -next(order), case))
            if len(worst) > NUM_WORST:
                heapq.heappop(worst)
    return _summarize(context, counts, means, histogram, bins, worst)


def _summarize(
    context: TallyContext,
    counts: _Counts,
    means: StreamedMeans,
    histogram: IntArray,
    bins: CalibrationCounts,
    worst: list[tuple[float, int, WorstCase]],
) -> Figures:
    num_named = counts.names.total()
    names, said = context.category_names, context.vocabulary_names
    return Figures(
        num_images=counts.images,
        num_instances=counts.instances,
        num_named=num_named,
        failures=tuple(counts.failures),
        estimates=means.estimate(),
        iou_histogram=histogram,
        calibration=bins.summarize() if num_named else None,
        confusions=tuple(
            (names[true], said[row], number)
            for (true, row), number in counts.confusions.most_common(NUM_CONFUSIONS)
        ),
        majority=max(counts.names.values()) / num_named if num_named else float("nan"),
        worst=tuple(case for _, _, case in sorted(worst, key=lambda one: (-one[0], -one[1]))),
    )


def _count_names(
    one: InstanceRow, context: TallyContext, counts: _Counts, bins: CalibrationCounts
) -> None:
    if one.said_row is None or not one.ranks or one.ranks[0] < 0:
        return
    counts.names[one.category_id] += 1
    bins.add(one.score, one.ranks[0] == 0)
    if one.ranks[0] > 0:
        counts.confusions[one.category_id, one.said_row] += 1


def _iter_values(row: ImageRow, context: TallyContext) -> Iterator[tuple[str, float]]:
    """(metric|group, value) of every object."""
    for one in row.instances:
        for group in iter_groups(one, context.split):
            yield f"iou|{group}", one.iou
            yield f"boundary_iou|{group}", one.boundary_iou
            for key, rank in zip(context.rank_keys, one.ranks, strict=False):
                if rank >= 0:
                    yield f"top1 {key}|{group}", float(rank == 0)
                    yield f"top5 {key}|{group}", float(rank < 5)


def iter_groups(one: InstanceRow, split: NameSplit) -> Iterator[str]:
    """The groups an object counts in, by COCO's areas, its name's split and its frequency."""
    yield ALL
    if one.area < SMALL_AREA:
        yield "small"
    else:
        yield "medium" if one.area < LARGE_AREA else "large"
    kind = split.kinds.get(one.category_id)
    if kind in (BASE, NOVEL):
        yield "base" if kind == BASE else "novel"
    letter = split.frequencies.get(one.category_id, "")
    if letter in FREQUENCIES:
        yield FREQUENCIES[letter]
