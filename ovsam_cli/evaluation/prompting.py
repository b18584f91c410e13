"""Prompts made from ground truth, by rules that have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.clicks import ClickRule, draw_pixels, find_center, to_input_points
from ovsam_cli.evaluation.datasets import Instance
from ovsam_cli.masks import decode_mask, mask_boxes
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import FloatArray, ImageGeometry

PromptName = Literal["box", "point", "points"]
BoxRule = Literal["tight", "annotated"]
MAX_POINTS = 64


@dataclass(frozen=True, slots=True)
class PromptRule:
    """How each object is prompted.

    Attributes:
        kind: its box; the point in its middle; or `count` random pixels of its mask.
        count: of points.
        click: which pixel is the middle.
        box: tight around the mask, or the annotation's own `bbox`.
        seed: of random pixels, together with the annotation's id.
    """

    kind: PromptName = "box"
    count: int = 1
    click: ClickRule = "exact"
    box: BoxRule = "tight"
    seed: int = 0

    def describe(self) -> str:
        """The rule in words, for every output that shows figures made with it."""
        if self.kind == "box":
            return "tight box of the true mask" if self.box == "tight" else "annotated box"
        if self.kind == "points":
            points = "1 random pixel" if self.count == 1 else f"{self.count} random pixels"
            return f"{points} of the true mask (seed {self.seed})"
        if self.click == "exact":
            return "pixel deepest inside the true mask, Euclidean distance"
        return "centre of the true mask by the published code's approximate distance"


def parse_prompt_rule(
    text: str, *, click: ClickRule, box: BoxRule = "tight", seed: int = 0
) -> PromptRule:
    """Read `box`, `point`, `points:K` or `random-point`.

    Raises:
        InputError: it is none of these.
    """
    if text == "box":
        return PromptRule("box", box=box)
    if text == "point":
        return PromptRule("point", click=click)
    if text == "random-point":
        return PromptRule("points", 1, seed=seed)
    name, _, number = text.partition(":")
    if name == "points" and number.isascii() and number.isdigit():
        if 1 <= int(number) <= MAX_POINTS:
            return PromptRule("points", int(number), seed=seed)
    raise InputError(
        f"--prompt {text!r}: expected box, point, random-point, or points:K with K random points, "
        f"1 to {MAX_POINTS}"
    )


def build_rule_prompts(
    instances: Sequence[Instance], geometry: ImageGeometry, rule: PromptRule
) -> ModelPrompts:
    """Prompts of the objects of one image, input frame."""
    boxes: FloatArray = np.zeros((len(instances), 4), np.float32)
    points: FloatArray = np.zeros((len(instances), 0, 2), np.float32)
    if rule.kind == "box":
        boxes = geometry.to_input_frame(find_boxes(instances, rule.box))
    else:
        found = [_find_points(one, geometry, rule) for one in instances]
        points = np.stack(found) if found else np.zeros((0, rule.count, 2), np.float32)
    return build_model_prompts(boxes, points, has_box=rule.kind == "box")


def build_model_prompts(
    boxes_xyxy: FloatArray, points: FloatArray, *, has_box: bool
) -> ModelPrompts:
    """Prompts of image 0: (B, 4) boxes and (B, N, 2) foreground points, both input frame."""
    count = len(boxes_xyxy)
    return ModelPrompts(
        image_index=torch.zeros(count, dtype=torch.int64),
        point_coords=torch.from_numpy(points),
        point_labels=torch.ones(points.shape[:2], dtype=torch.int64),
        model_boxes_xyxy=torch.from_numpy(boxes_xyxy),
        has_box=torch.full((count,), has_box),
    )


def find_boxes(instances: Sequence[Instance], rule: BoxRule) -> FloatArray:
    """(B, 4) float32 xyxy, original frame; tight ones where the annotation has none."""
    boxes = mask_boxes([one.segmentation for one in instances]).reshape(-1, 4)
    if rule == "annotated":
        for row, one in enumerate(instances):
            if one.bbox is not None:
                left, top, width, height = one.bbox
                boxes[row] = left, top, left + width, top + height
    return boxes


def _find_points(instance: Instance, geometry: ImageGeometry, rule: PromptRule) -> FloatArray:
    """(N, 2) float32, input frame."""
    mask = decode_mask(instance.segmentation)
    if rule.kind == "point":
        return find_center(mask, geometry, rule.click)[None]
    # Of its own for every object, so that leaving one out does not move the others' points.
    pixels = draw_pixels(mask, rule.count, seed=rule.seed * 1_000_003 + instance.annotation_id)
    return to_input_points(pixels, geometry)
