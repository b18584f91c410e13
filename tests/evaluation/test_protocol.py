"""Ground-truth prompts in the input frame; masks and ranks come back instance by instance."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import disc_mask
from torch import Tensor

from ovsam_cli.evaluation import protocol
from ovsam_cli.evaluation.datasets import Instance, InstanceImage
from ovsam_cli.evaluation.metrics import compute_ious
from ovsam_cli.evaluation.protocol import Naming, PromptKind, answer_images, build_prompts
from ovsam_cli.masks import encode_mask
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import ImageGeometry

GEOMETRY = ImageGeometry(original_hw=(48, 64), input_hw=(96, 128), model_size=128)


class FakeModel:
    """Answers a box with its ellipse and a point with a disc; scores are the first columns."""

    def encode_prompts(self, prompts: ModelPrompts) -> ModelPrompts:
        return prompts

    def decode_masks(self, features: ImageFeatures, prompts: ModelPrompts) -> DecodedMasks:
        cells = torch.arange(64) * 2 + 1.0  # cell centers in pixels
        boxes = prompts.model_boxes_xyxy
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        if prompts.point_coords.shape[1]:
            middle, half = prompts.point_coords[:, 0] + 0.5, torch.full((len(boxes), 2), 20.0)
        x = (cells - middle[:, :1])[:, None] / half[:, :1, None]
        y = (cells - middle[:, 1:])[:, :, None] / half[:, 1:, None]
        return DecodedMasks((1 - x.square() - y.square())[:, None], None)

    def classify(
        self, features: ImageFeatures, masks: Tensor, prompts: object, text: Tensor, fusion: Fusion
    ) -> Tensor:
        scores = torch.tensor([[3.0, 1.0, 2.0, 9.0]])  # background, the last, does not compete
        return scores.expand(len(masks), -1)


def encode_image(image: InstanceImage) -> tuple[ImageFeatures, ImageGeometry]:
    empty = torch.zeros(1, 1, 1, 1)
    return ImageFeatures(empty, (empty,), empty, (GEOMETRY.input_hw,)), GEOMETRY


def make_instances(radii: list[float]) -> tuple[Instance, ...]:
    """Discs at (x, y) = (32, 24), one category after another."""
    return tuple(
        Instance(row, 10 * (row % 3), encode_mask(disc_mask(radius=radius)), 100)
        for row, radius in enumerate(radii)
    )


def make_image(instances: tuple[Instance, ...]) -> InstanceImage:
    return InstanceImage(Path("a.png"), 1, (48, 64), instances)


def test_box_prompts_are_tight_boxes_in_the_input_frame() -> None:
    prompts = build_prompts(make_instances([10, 4]), GEOMETRY, "box")
    assert prompts.model_boxes_xyxy.tolist() == [[44, 28, 86, 70], [56, 40, 74, 58]]
    assert prompts.has_box.tolist() == [True, True]
    assert prompts.point_coords.shape == (2, 0, 2)
    assert prompts.image_index.tolist() == [0, 0]


def test_center_prompts_are_scaled_around_pixel_centers() -> None:
    """Pixel 32 of 64 covers pixels 64 and 65 of 128; their middle is 64.5."""
    prompts = build_prompts(make_instances([10]), GEOMETRY, "center")
    assert prompts.point_coords.tolist() == [[[64.5, 48.5]]]
    assert prompts.point_labels.tolist() == [[1]]
    assert prompts.has_box.tolist() == [False]
    assert not prompts.model_boxes_xyxy.any()


@pytest.mark.parametrize("hw", [(96, 128), (72, 96), (37, 49)])
def test_center_is_near_the_references(hw: tuple[int, int]) -> None:
    """The reference resizes the mask first: on one disc the two points agree within a pixel."""
    from ovsam_cli.evaluation.centers import compute_center_point

    geometry = ImageGeometry((48, 64), hw, 128)
    mask = torch.from_numpy(disc_mask(radius=11))[None, None].float()
    expected = compute_center_point(F.interpolate(mask, hw, mode="nearest")[0, 0].numpy() > 0)
    found = build_prompts(make_instances([11]), geometry, "center").point_coords[0, 0]
    np.testing.assert_allclose(found, expected, atol=1.01)


@pytest.mark.parametrize("kind", ["box", "center"])
def test_answers_are_in_the_original_frame(kind: PromptKind) -> None:
    instances = make_instances([10])
    model = cast(OVSAM, FakeModel())
    answers = answer_images(model, encode_image, [make_image(instances)], kind)
    truth = [one.segmentation for one in instances]
    assert answers.segmentations[0]["size"] == [48, 64]
    assert compute_ious(answers.segmentations, truth)[0] > 0.9
    assert answers.ranks.tolist() == [-1]


def test_ranks_count_the_names_that_beat_the_true_one() -> None:
    naming = Naming(torch.zeros(3, 1, 4), {0: 0, 10: 1, 20: 2}, Fusion(mode="head"))
    image = make_image(make_instances([10, 9, 8, 7]))
    model = cast(OVSAM, FakeModel())
    answers = answer_images(model, encode_image, [image], "box", naming=naming)
    assert answers.ranks.tolist() == [0, 2, 1, 0]


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [make_image(make_instances([10, 9, 8, 7, 6])), make_image(make_instances([5, 12]))]
    model = cast(OVSAM, FakeModel())
    whole = answer_images(model, encode_image, images, "box")
    monkeypatch.setattr(protocol, "PROMPTS_PER_BATCH", 2)
    parts = answer_images(model, encode_image, images, "box")
    assert parts.segmentations == whole.segmentations
    assert len(parts.ranks) == 7


@pytest.mark.parametrize("images", [[], [make_image(())]])
def test_nothing_to_ask(images: list[InstanceImage]) -> None:
    answers = answer_images(cast(OVSAM, FakeModel()), encode_image, images, "center")
    assert answers.segmentations == ()
    assert len(answers.ranks) == 0
