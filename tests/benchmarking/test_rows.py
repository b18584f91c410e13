"""The rows on little data: both sides agree, and a wrong result is noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovsam_cli.benchmarking import grid_filter, labelling_rows
from ovsam_cli.benchmarking.comparison import Comparison
from ovsam_cli.benchmarking.grid_filter import compare_grid_filters
from ovsam_cli.benchmarking.image_reading import compare_reading
from ovsam_cli.benchmarking.labelling_rows import (
    Work,
    compare_cpu_labelling,
    compare_labelling,
    open_contenders,
)
from ovsam_cli.benchmarking.mask_rows import compare_mask_encoding
from ovsam_cli.benchmarking.measurement import Measurement, Skipped
from ovsam_cli.benchmarking.memory import measure_host_memory
from ovsam_cli.benchmarking.network_rows import compare_network_parts, compare_trunks
from ovsam_cli.benchmarking.network_speed import (
    measure_cuda_pipeline,
    measure_efficiency,
    measure_scaling,
    measure_tiny,
    measure_tiny_scaling,
)
from ovsam_cli.benchmarking.plain_run import NamedMask, compare_answers
from ovsam_cli.benchmarking.sam_rows import compare_with_sam
from ovsam_cli.benchmarking.samples import draw_mask_logits, draw_photo, write_photos
from ovsam_cli.benchmarking.settings import MINIMAL, BenchSettings
from ovsam_cli.benchmarking.startup import measure_help, measure_resume
from ovsam_cli.labelling.grid import DistinctOptions
from ovsam_cli.masks import encode_mask


@pytest.fixture
def settings(tmp_path: Path) -> BenchSettings:
    return BenchSettings("full", torch.device("cpu"), "small", MINIMAL, tmp_path)


CPU_KEYS = ("C1", "C2", "C3", "C3-large")


def test_samples_are_the_same_every_time(tmp_path: Path) -> None:
    assert (draw_photo((20, 30), seed=1) == draw_photo((20, 30), seed=1)).all()
    folder = write_photos(tmp_path / "photos", count=5, hw=(20, 30), num_different=2)
    assert len(list(folder.glob("*.jpg"))) == 5
    assert (folder / "00004.jpg").read_bytes() == (folder / "00000.jpg").read_bytes()


def test_grid_filter(settings: BenchSettings) -> None:
    (row,) = compare_grid_filters(settings)
    assert row.is_valid, row.parity
    assert len(row.our_seconds) == settings.rounds


def test_plain_duplicates_are_those_of_the_greedy_rule() -> None:
    logits = torch.from_numpy(draw_mask_logits(count=40, num_objects=5, side=64, seed=1))
    scores = np.linspace(1, 0.95, 40, dtype=np.float32)
    kept = grid_filter.keep_plainly(logits, scores, DistinctOptions())
    assert list(kept) == [0, 1, 2, 3, 4]


def test_other_survivors_void_the_row(
    settings: BenchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_filter, "keep_plainly", lambda *args: np.arange(3) + 5)
    (row,) = compare_grid_filters(settings)
    assert not row.is_valid


def test_reading(settings: BenchSettings) -> None:
    rows = compare_reading(settings)
    assert all(isinstance(row, Skipped) or row.is_valid for row in rows)


def test_help(settings: BenchSettings) -> None:
    (row,) = measure_help(replace(settings, rounds=1))
    assert isinstance(row, Measurement)
    assert row.is_valid and row.value > 0


def test_finished_run(settings: BenchSettings) -> None:
    seconds, share = measure_resume(replace(settings, rounds=1))
    assert isinstance(seconds, Measurement) and isinstance(share, Measurement)
    assert seconds.is_valid and seconds.value > 0 and share.value > 0


def test_labelling(settings: BenchSettings) -> None:
    rows = [row for key in CPU_KEYS for row in compare_cpu_labelling(settings, key=key)]
    assert [row.key for row in rows] == list(CPU_KEYS)
    for row in rows:
        assert row.is_valid, row.parity


def test_other_weights_void_the_row(settings: BenchSettings) -> None:
    contenders = open_contenders(settings)
    model = contenders.plain.model
    with torch.no_grad():
        for weight in model.mask_decoder.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    work = Work("", "boxes", settings.sizes.vga_hw, 3, 1)
    (row,) = compare_labelling(settings, contenders, work)
    assert not row.is_valid


def test_answers_that_differ() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    half, other = NamedMask(1, encode_mask(mask)), NamedMask(2, encode_mask(mask.T))
    ours = {("a", "1"): half, ("a", "2"): half, ("b", "1"): half}
    found = compare_answers(ours, {("a", "1"): half, ("a", "2"): other})
    assert (found.num_matched, found.num_missing, found.same_names) == (2, 1, 0.5)
    assert found.mean_iou == pytest.approx((1 + 1 / 3) / 2)
    assert compare_answers(ours, {}).num_matched == 0


def test_loop_over_single_prompts(settings: BenchSettings) -> None:
    contenders = open_contenders(settings)
    work = replace(labelling_rows.list_cuda_work(settings)[3], key="")
    (row,) = compare_labelling(settings, contenders, work)
    assert isinstance(row, Comparison) and row.is_valid, row.parity


def test_network_parts(settings: BenchSettings) -> None:
    for row in [*compare_network_parts(settings), *compare_trunks(settings)]:
        assert row.is_valid, row.parity


def test_mask_encoding(settings: BenchSettings) -> None:
    rows = compare_mask_encoding(settings)
    assert {row.key for row in rows} == {"C6", "C7"}
    assert all(isinstance(row, Skipped) or row.is_valid for row in rows)


def test_tiny_and_prompts(settings: BenchSettings) -> None:
    once = replace(settings, rounds=1)
    speed, share = measure_tiny(once)
    assert isinstance(speed, Measurement) and speed.is_valid and speed.value > 0
    assert isinstance(share, Measurement) and share.is_valid and share.value > 0
    assert [row.key for row in measure_scaling(once)] == ["G9", "G9"]
    assert [row.key for row in measure_tiny_scaling(once)] == ["G9", "G9"]


def test_gpu_figures_on_the_cpu(settings: BenchSettings) -> None:
    once = replace(settings, rounds=1)
    (efficiency,) = measure_efficiency(once)
    assert isinstance(efficiency, Measurement) and efficiency.value > 0
    assert {row.key for row in measure_cuda_pipeline(once)} == {"", "G10"}


@pytest.mark.slow
def test_other_software(settings: BenchSettings) -> None:
    pytest.importorskip("segment_anything")
    rows = compare_with_sam(settings)
    assert [row.key for row in rows] == ["G6", "G7", "G7"]
    for row in rows:
        assert isinstance(row, Comparison) and row.is_valid, row


@pytest.mark.slow
def test_host_memory(settings: BenchSettings) -> None:
    for row in measure_host_memory(settings):
        assert isinstance(row, Measurement) and row.is_valid and row.value >= 1
