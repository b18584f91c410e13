"""Batches are cut from all images, whatever is finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labeller_builders import build_small_labeller, read_options, write_records

from ovsam_cli.labelling.planner import (
    PreparedImage,
    iter_unfinished,
    plan_batches,
    prepare_image,
)
from ovsam_cli.structures import ImageRecord, ImageResult


def records_of(count: int) -> list[ImageRecord]:
    return [ImageRecord(Path(f"{n}.jpg"), f"{n}.jpg", n + 1) for n in range(count)]


def numbers(batches: object) -> list[list[int]]:
    return [[record.image_id - 1 for record in batch] for batch in batches]


def test_windows_are_sorted_by_prompts_and_keep_ties_in_order() -> None:
    counts = [1, 5, 0, 5, 2, 9, 9, 1]
    batches = plan_batches(
        records_of(8), lambda record: counts[record.image_id - 1], batch_size=2, window=5
    )
    assert numbers(batches) == [[1, 3], [4, 0], [2], [5, 6], [7]]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_image_is_in_one_batch(batch_size: int) -> None:
    rng = np.random.default_rng(batch_size)
    counts = rng.integers(0, 30, 1100)
    batches = numbers(
        plan_batches(records_of(1100), lambda r: int(counts[r.image_id - 1]), batch_size=batch_size)
    )
    assert sorted(n for batch in batches for n in batch) == list(range(1100))
    assert max(len(batch) for batch in batches) == batch_size


def test_unfinished_batches_stay_whole() -> None:
    batches = list(plan_batches(records_of(6), lambda record: 0, batch_size=2))
    left = iter_unfinished(batches, frozenset({"0.jpg", "1.jpg", "2.jpg"}))
    assert numbers(left) == [[2, 3], [4, 5]]


def test_an_image_is_written_into_its_buffer(tmp_path: Path) -> None:
    labeller = build_small_labeller()
    (record,) = write_records(tmp_path, [(90, 200)])
    buffer = np.zeros(labeller.pixel_format.model_size**2 * 3, np.uint8)
    placed = prepare_image(record, read_options(labeller), buffer=buffer)
    alone = prepare_image(record, read_options(labeller))
    assert isinstance(placed, PreparedImage) and isinstance(alone, PreparedImage)
    assert np.shares_memory(placed.input_rgb, buffer) and placed.input_rgb.flags.c_contiguous
    assert np.array_equal(placed.input_rgb, alone.input_rgb)
    assert placed.rgb is None


def test_a_bad_image_is_a_result(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    found = prepare_image(
        ImageRecord(tmp_path / "a.jpg", "a.jpg", 1), read_options(build_small_labeller())
    )
    assert isinstance(found, ImageResult) and found.reason == "not_an_image"
