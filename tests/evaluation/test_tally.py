"""Rows added up: groups, names, the worst, and how much memory it takes."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ovsam_cli.evaluation.figure_charts import draw_groups
from ovsam_cli.evaluation.figure_tables import draw_figures, list_rows
from ovsam_cli.evaluation.instance_rows import (
    ImageRow,
    InstanceRow,
)
from ovsam_cli.evaluation.splits import NameSplit
from ovsam_cli.evaluation.tally import NUM_WORST, TallyContext, tally_rows
from ovsam_cli.structures import ImageRecord, Rle

RLE = Rle(size=[4, 4], counts="44")
CONTEXT = TallyContext(
    category_names={1: "cat", 2: "dog"},
    vocabulary_names=("cat", "dog", "cow"),
    rank_keys=("3 names", "2 names"),
    split=NameSplit("toy", {1: 1, 2: 2}, {1: "f", 2: "r"}),
)


def instance(iou: float, category: int = 1, **more: object) -> InstanceRow:
    found = InstanceRow(
        annotation_id=1,
        category_id=category,
        area=500,
        iou=iou,
        boundary_iou=iou / 2,
        segmentation=RLE,
        said_row=category - 1,
        score=0.7,
        ranks=(0, 0),
    )
    return replace(found, **more)  # type: ignore[arg-type]


def image(number: int, *instances: InstanceRow) -> ImageRow:
    return ImageRow(ImageRecord(Path(f"{number}.jpg"), f"{number}.jpg", number), instances)


def test_groups_and_names() -> None:
    """A small cat found; a large dog called a cow, then, of the split's names alone, itself."""
    rows = [
        image(1, instance(0.8)),
        image(2, instance(0.2, 2, area=20_000, said_row=2, ranks=(1, 0)), instance(0.5)),
        ImageRow(ImageRecord(Path("x"), "x", 3), reason="truncated", message="x: truncated"),
    ]
    found = tally_rows(rows, CONTEXT)
    means = {key: round(one.mean, 6) for key, one in found.estimates.items()}
    assert means["iou|all"] == 0.5
    assert (means["iou|small"], means["iou|large"]) == (0.65, 0.2)
    assert (means["iou|base"], means["iou|novel"]) == (0.65, 0.2)
    assert (means["iou|frequent"], means["iou|rare"]) == (0.65, 0.2)
    assert means["boundary_iou|all"] == 0.25
    assert means["top1 3 names|all"] == pytest.approx(2 / 3, abs=1e-6)
    assert (means["top5 3 names|all"], means["top1 2 names|novel"]) == (1.0, 1.0)
    assert (found.num_images, found.num_instances, found.num_named) == (2, 3, 3)
    assert found.failures == (("x", "x: truncated"),)
    assert found.confusions == (("dog", "cow", 1),)
    assert found.majority == pytest.approx(2 / 3)
    assert found.calibration is not None
    assert found.calibration.error == pytest.approx(abs(2 / 3 - 0.7), abs=1e-6)
    assert found.iou_histogram.sum() == 3
    assert [case.instance.iou for case in found.worst] == [0.2, 0.5, 0.8]
    text = draw_figures(list_rows(found.estimates, CONTEXT.rank_keys))
    assert text.splitlines()[1].split() == ["mask", "IoU", "all", "3", ".500", *text_interval(text)]


def test_groups_of_one_object_have_no_interval() -> None:
    """`-` in table and chart, null in metrics.json; they used to look certain."""
    rows = [image(1, instance(0.8)), image(2, instance(0.6)), image(3, instance(0.2, 2))]
    found = tally_rows(rows, CONTEXT)
    lines = draw_figures(list_rows(found.estimates, CONTEXT.rank_keys)).splitlines()
    base, novel = lines[3:5]  # of the mask IoU
    assert base.split() == ["base", "2", ".700", "[.600,", ".800]"]
    assert novel.split() == ["novel", "1", ".200", "-"]
    chart = draw_groups("IoU", "iou", found.estimates)
    assert chart.count('class="range"') == chart.count('class="bar"') - 2  # novel, rare
    assert "nan" not in chart


def text_interval(text: str) -> list[str]:
    return text.splitlines()[1].split()[-2:]


def test_names_that_do_not_compete_do_not_count() -> None:
    rows = [image(1, instance(0.5, ranks=(-1, 0)), instance(0.5, ranks=(0, -1)))]
    found = tally_rows(rows, CONTEXT)
    assert found.num_named == 1
    assert found.estimates["top1 3 names|all"].num_instances == 1
    assert found.estimates["top1 2 names|all"].num_instances == 1


def test_masks_alone() -> None:
    alone = instance(0.5, said_row=None, ranks=(), score=float("nan"))
    found = tally_rows([image(1, alone)], replace(CONTEXT, rank_keys=()))
    assert found.calibration is None and np.isnan(found.majority)
    assert not [key for key in found.estimates if key.startswith("top")]


def test_no_rows() -> None:
    assert tally_rows([], CONTEXT).estimates == {}


def test_rows_survive_the_journal() -> None:
    for one in (instance(0.25), instance(0.1, said_row=None, ranks=(), score=float("nan"))):
        row = image(1, one)
        assert repr(ImageRow.from_json(row.to_json())) == repr(row)
    head = json.loads(image(1).to_json())
    assert [*head][:4] == ["file_name", "image_id", "path", "status"]  # as the row index reads


def make_rows(num_images: int) -> Iterator[ImageRow]:
    rng = np.random.default_rng(0)
    for number in range(num_images):
        ious = rng.random(7).tolist()
        yield image(number, *(instance(one, 1 + number % 2) for one in ious))


def test_the_worst_are_few_and_in_order() -> None:
    found = tally_rows(make_rows(40), CONTEXT)
    ious = [case.instance.iou for case in found.worst]
    everything = sorted(one.iou for row in make_rows(40) for one in row.instances)
    assert ious == everything[:NUM_WORST]


def test_memory_does_not_grow_with_the_images() -> None:
    """35,000 objects of 5,000 images take what 3,500 of 500 do."""
    peaks = []
    for num_images in (500, 5000):
        tracemalloc.start()
        tally_rows(make_rows(num_images), CONTEXT)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 50_000
    assert peaks[1] < 3_000_000
