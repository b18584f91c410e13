"""What a report says of a run, gathered result by result: counts, histograms, a sample of objects.

Memory does not grow with the run: histograms have fixed bins, failures are listed up to a limit,
and the sample is the most uncertain objects beside random ones.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.structures import Detections, FloatArray, ImageRecord, ImageResult, IntArray, Rle

NUM_UNCERTAIN, NUM_RANDOM = 180, 60
MIN_PER_IMAGE = 3  # uncertain objects of one image; more where a run has few images
MAX_FAILURES = 200
UNCERTAIN_MARGIN = 0.1
NUM_BINS = 20
# Share of the image an object covers: two bins a power of ten, from a millionth to all of it.
AREA_EDGES = 10.0 ** np.arange(-6, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Sample:
    """One object of the gallery.

    Attributes:
        record: its image.
        original_hw: (height, width) of the image.
        row: place of the object among those of the image.
        prompt_id: it came from.
        segmentation, box_xyxy: mask and tight box, original frame.
        category_id, score, margin, stability_score: as in `Detections`.
        area_share: of the image, 0..1.
        topk: the best (name, probability) pairs, best first.
        is_random: not chosen for being uncertain.
    """

    record: ImageRecord
    original_hw: tuple[int, int]
    row: int
    prompt_id: int | str
    segmentation: Rle
    box_xyxy: FloatArray
    category_id: int
    score: float
    margin: float
    stability_score: float
    area_share: float
    topk: tuple[tuple[str, float], ...]
    is_random: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be labelled, and why."""

    file_name: str
    reason: str
    message: str


@dataclass(slots=True)
class RunStatistics:
    """Counts of a run; `add` is called with every result.

    Attributes:
        statuses: images by `ok`, `empty`, `failed`.
        categories: objects by category id.
        num_objects, num_uncertain, num_notices: of the whole run; uncertain are those whose margin
            is below `UNCERTAIN_MARGIN`.
        scores, margins, stability: (NUM_BINS,) objects by value in [0, 1].
        area_shares: objects by share of their image, between `AREA_EDGES`.
        reasons: failures by reason.
        failures: the first of them.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    categories: Counter[int] = field(default_factory=Counter)
    num_objects: int = 0
    num_uncertain: int = 0
    num_notices: int = 0
    scores: IntArray = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    margins: IntArray = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    stability: IntArray = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    area_shares: IntArray = field(
        default_factory=lambda: np.zeros(len(AREA_EDGES) - 1, dtype=np.int64)
    )
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        """Images seen so far, failed ones included."""
        return self.statuses.total()

    def add(self, result: ImageResult) -> None:
        """Count one result."""
        self.statuses[result.status] += 1
        self.num_notices += len(result.warnings)
        if result.detections is None:
            self.reasons[result.reason] += 1
            if len(self.failures) < MAX_FAILURES:
                failure = Failure(result.record.file_name, result.reason, result.message)
                self.failures.append(failure)
            return
        found = result.detections
        self.num_objects += len(found)
        self.num_uncertain += int((found.margins < UNCERTAIN_MARGIN).sum())
        self.categories.update(found.category_ids.tolist())
        for counts, values in (
            (self.scores, found.scores),
            (self.margins, found.margins),
            (self.stability, found.stability_scores),
        ):
            counts += np.histogram(values.clip(0, 1), NUM_BINS, (0, 1))[0]
        shares = _area_shares(result, found).clip(AREA_EDGES[0], 1)
        self.area_shares += np.histogram(shares, AREA_EDGES)[0]


class SampleChooser:
    """Chooses the objects of the gallery while results stream by; the same ones every time.

    Args:
        num_images: of the whole run, so that a short one shows more objects an image.
    """

    def __init__(self, num_images: int) -> None:
        self._per_image = max(MIN_PER_IMAGE, math.ceil(NUM_UNCERTAIN / max(num_images, 1)))
        # The least uncertain first, to be replaced first; ids make every key different.
        self._uncertain: list[tuple[float, int, int, Sample]] = []
        self._random: list[Sample] = []
        self._generator = random.Random(0)
        self._num_seen = 0

    def add(self, result: ImageResult) -> None:
        """Look at the objects of one image."""
        found = result.detections
        if found is None or not len(found):
            return
        order = np.lexsort((np.arange(len(found)), found.margins))[: self._per_image]
        for row in order.tolist():
            key = (-float(found.margins[row]), -result.record.image_id, -row)
            if len(self._uncertain) < NUM_UNCERTAIN:
                sample = _take_sample(result, found, row, is_random=False)
                heapq.heappush(self._uncertain, (*key, sample))
            elif key > self._uncertain[0][:3]:
                sample = _take_sample(result, found, row, is_random=False)
                heapq.heapreplace(self._uncertain, (*key, sample))
        self._add_random(result, found)

    def _add_random(self, result: ImageResult, found: Detections) -> None:
        """Reservoir sampling over images, one random object of each."""
        self._num_seen += 1
        row = self._generator.randrange(len(found))
        place = self._generator.randrange(self._num_seen)
        if len(self._random) < NUM_RANDOM:
            self._random.append(_take_sample(result, found, row, is_random=True))
        elif place < NUM_RANDOM:
            self._random[place] = _take_sample(result, found, row, is_random=True)

    def choose(self) -> list[Sample]:
        """The sample, the most uncertain first, each object once."""
        chosen = [sample for *_, sample in self._uncertain]
        taken = {(sample.record.image_id, sample.row) for sample in chosen}
        chosen += [one for one in self._random if (one.record.image_id, one.row) not in taken]
        return sorted(
            chosen, key=lambda sample: (sample.margin, sample.record.image_id, sample.row)
        )


def _take_sample(result: ImageResult, found: Detections, row: int, *, is_random: bool) -> Sample:
    return Sample(
        record=result.record,
        original_hw=result.original_hw,
        row=row,
        prompt_id=found.prompt_ids[row],
        segmentation=found.segmentations[row],
        box_xyxy=found.boxes_xyxy[row].copy(),
        category_id=int(found.category_ids[row]),
        score=float(found.scores[row]),
        margin=float(found.margins[row]),
        stability_score=float(found.stability_scores[row]),
        area_share=float(_area_shares(result, found)[row]),
        topk=found.topk[row],
        is_random=is_random,
    )


def _area_shares(result: ImageResult, found: Detections) -> NDArray[np.float64]:
    height, width = result.original_hw
    shares: NDArray[np.float64] = found.areas / max(height * width, 1)
    return shares
