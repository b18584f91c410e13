"""The torch form of mask encoding against the NumPy form, on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from labeller_builders import build_small_labeller, prepare_all, read_options, write_records
from logit_builders import KINDS, geometry_of, make_logits, upscale_with_torch

from ovsam_cli import masks
from ovsam_cli.labelling import device_masks, finishing
from ovsam_cli.labelling.device_masks import encode_device_logits
from ovsam_cli.labelling.options import GridOptions, LabelOptions
from ovsam_cli.labelling.pipeline import label_batch
from ovsam_cli.labelling.planner import ImageBatch
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.structures import Detections, ImageRecord

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("original_hw", [(97, 131), (1, 1), (1, 70), (300, 40)])
def test_masks_are_those_of_the_numpy_form(
    original_hw: tuple[int, int], kind: str, device: str
) -> None:
    """A GPU fuses products and sums, so there pixels of logits near 0 may differ."""
    for side, model_size in ((256, 1024), (128, 512), (20, 70)):
        geometry = geometry_of(*original_hw, model_size)
        cells = make_logits(kind, 4, side, seed=3)
        expected = masks.encode_mask_logits(cells, geometry, mask_threshold=0.25)
        found = encode_device_logits(
            torch.from_numpy(cells).to(device), geometry, mask_threshold=0.25
        )
        upscaled = upscale_with_torch(cells - np.float32(0.25), geometry)
        for row, rle in enumerate(found.segmentations):
            if rle != expected.segmentations[row]:
                decoded = masks.decode_mask(rle)
                differ = decoded != masks.decode_mask(expected.segmentations[row])
                assert device == "cuda" and (np.abs(upscaled[row][differ]) < 1e-5).all()
        if device == "cpu":
            assert found.areas.tolist() == expected.areas.tolist()
            assert np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)


def test_no_masks() -> None:
    assert len(encode_device_logits(torch.zeros(0, 8, 8), geometry_of(4, 5, 16))) == 0


def test_sizes_of_no_model() -> None:
    cells = torch.full((1, 9, 9), 2.0)
    assert encode_device_logits(cells, geometry_of(4, 5, 6)).areas.tolist() == [20]


def test_noise_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device would need memory for all its sign changes at once."""
    geometry = geometry_of(97, 131)
    cells = make_logits("noise", 2, 256)
    monkeypatch.setattr(device_masks, "_MOST_COLUMNS", 100)
    found = encode_device_logits(torch.from_numpy(cells), geometry)
    assert found.segmentations == masks.encode_mask_logits(cells, geometry).segmentations


Label = Callable[[], list[Detections]]


@pytest.fixture
def records(tmp_path: Path) -> tuple[ImageRecord, ...]:
    return write_records(tmp_path, [(60, 80), (90, 50), (30, 40)])


@pytest.fixture(params=[None, 4], ids=["prompts", "grid"])
def label(
    request: pytest.FixtureRequest,
    records: tuple[ImageRecord, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> Label:
    """Labels the records as a GPU would whose masks are encoded there."""
    monkeypatch.setattr(Labeller, "encodes_on_device", True)
    monkeypatch.setattr(device_masks, "LARGE_PIXELS", 4000)  # not the last one
    side = request.param
    grid = None if side is None else GridOptions(points_per_side=side)
    labeller = build_small_labeller(LabelOptions(top_k=2, grid=grid, min_stability=0.0))
    options = read_options(labeller, None if grid else lambda record: "bpnb")

    @torch.inference_mode()
    def run() -> list[Detections]:
        found = label_batch(labeller, ImageBatch.of(prepare_all(records, options)))
        assert all(isinstance(one, Detections) for one in found)
        return [one for one in found if isinstance(one, Detections)]

    return run


def test_a_run_has_its_large_masks_from_the_device(
    label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: set[tuple[int, int]] = set()

    def encode(*arguments: object) -> masks.EncodedMasks:
        sizes.add(arguments[2].original_hw)  # type: ignore[attr-defined]
        return device_masks.encode_beside(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(finishing, "encode_beside", encode)
    found = label()
    assert sizes == {(60, 80), (90, 50)}
    monkeypatch.setattr(Labeller, "encodes_on_device", False)
    for one, expected in zip(found, label(), strict=True):
        assert one.segmentations == expected.segmentations and len(one)
        assert one.areas.tolist() == expected.areas.tolist()
        np.testing.assert_array_equal(one.boxes_xyxy, expected.boxes_xyxy)


def test_a_device_without_memory_leaves_masks_to_the_host(
    label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*arguments: object) -> masks.EncodedMasks:
        raise torch.OutOfMemoryError("CUDA out of memory")

    expected = label()
    monkeypatch.setattr(finishing, "encode_beside", run_out)
    assert [one.segmentations for one in label()] == [one.segmentations for one in expected]
