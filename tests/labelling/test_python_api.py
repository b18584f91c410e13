"""Labelling from Python: prompts, the grid, files and arrays, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import photo
from labeller_builders import NAMES, build_small_labeller

import ovsam_cli
from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.labelling.options import GridOptions, LabelOptions
from ovsam_cli.labelling.python_api import label_image, make_prompts
from ovsam_cli.masks import decode_mask
from ovsam_cli.structures import Detections

BOXES = [(5, 5, 40, 30), (10, 20, 60, 50)]


@pytest.fixture(scope="module")
def model():
    return build_small_labeller(LabelOptions(top_k=2))


def test_public_names():
    for name in (
        "load_model",
        "label_image",
        "label_images",
        "make_prompts",
        "Prompts",
        "Detections",
    ):
        assert name in ovsam_cli.__all__
    assert ovsam_cli.label_image is label_image


def test_prompts_are_numbered():
    prompts = make_prompts(boxes_xyxy=BOXES, points=[(7, 8)])
    assert prompts.prompt_ids == (1, 2, 3)
    assert prompts.has_box.tolist() == [True, True, False]
    assert prompts.point_coords[2, 0].tolist() == [7, 8]
    assert len(make_prompts()) == 0


def test_file_and_array_agree(model, image_file):
    path = image_file("a.png", photo())
    prompts = make_prompts(boxes_xyxy=BOXES, points=[(20, 20)])
    found, again = label_image(model, path, prompts), label_image(model, photo(), prompts)
    assert found.segmentations == again.segmentations
    np.testing.assert_array_equal(found.scores, again.scores)
    assert set(found.prompt_ids) <= {1, 2, 3} and len(found)
    assert found.topk[0][0][0] == model.names[int(found.category_ids[0])]


def test_no_prompts_is_a_grid(model):
    options = LabelOptions(grid=GridOptions(2), min_stability=0.0)
    found = label_image(replace(model, options=options), photo())
    assert isinstance(found, Detections)
    assert len(label_image(model, photo(), make_prompts())) == 0


def test_names(model):
    assert tuple(model.names.values()) == NAMES
    options = LabelOptions(unknown_name="thing")
    unknown = replace(model, options=options, unknown_category_id=4)
    assert unknown.names[4] == "thing"


def test_refusals(model, tmp_path):
    with pytest.raises(ImageError, match=r"no\.jpg"):
        label_image(model, tmp_path / "no.jpg", make_prompts(boxes_xyxy=BOXES))
    with pytest.raises(InputError, match=r"\(H, W, 3\) uint8 in RGB order, found \(4, 4\)"):
        label_image(model, np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="no area"):
        make_prompts(boxes_xyxy=[(5, 5, 5, 9)])


@pytest.mark.filterwarnings("ignore")
def test_to_supervision(model):
    supervision = pytest.importorskip("supervision")
    found = label_image(model, photo(), make_prompts(boxes_xyxy=BOXES))
    theirs = found.to_supervision(model.names)
    assert isinstance(theirs, supervision.Detections) and len(theirs) == len(found)
    for mask, rle in zip(theirs.mask, found.segmentations, strict=True):
        np.testing.assert_array_equal(mask, decode_mask(rle))
    np.testing.assert_array_equal(theirs.xyxy, found.boxes_xyxy)
    assert theirs.data["class_name"][0] == model.names[int(found.category_ids[0])]
    assert set(found.to_supervision().data) == {"prompt_id"}
    assert len(Detections.empty().to_supervision()) == 0
