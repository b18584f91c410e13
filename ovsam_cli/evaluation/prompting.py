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
from ovsam_cli.evaluation.open_images import Target, split_by_image
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
    text: str,
    *,
    click: ClickRule | None = None,
    default_click: ClickRule = "exact",
    box: BoxRule = "tight",
    seed: int = 0,
) -> PromptRule:
    """Read `box`, `point`, `points:K` or `random-point`.

    Args:
        text: one of these.
        click: the middle, as asked for; None is `default_click`.
        default_click: the middle where nothing was asked for.
        box, seed: see `PromptRule`.

    Raises:
        InputError: it is none of these, or a click was asked for and it has no middle.
    """
    if text == "point":
        return PromptRule("point", click=click or default_click)
    rule = _parse_other_rule(text, box, seed)
    if click is not None:
        raise InputError(
            f"--click {click}: says which pixel is the middle, and --prompt {text} has none; "
            "give --prompt point, or leave out --click"
        )
    return rule


def _parse_other_rule(text: str, box: BoxRule, seed: int) -> PromptRule:
    if text == "box":
        return PromptRule("box", box=box)
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
    targets: Sequence[Target], geometries: Sequence[ImageGeometry], rule: PromptRule
) -> ModelPrompts:
    """Prompts of objects of a batch, input frames.

    Args:
        targets: B objects, those of an image together.
        geometries: of the batch's images.
        rule: how objects are prompted.
    """
    count = len(targets)
    boxes: FloatArray = np.zeros((count, 4), np.float32)
    points: FloatArray = np.zeros((count, 0, 2), np.float32)
    has_box = rule.kind == "box"
    if has_box:
        for number, part in split_by_image(targets):
            found = find_boxes([one.instance for one in targets[part]], rule.box)
            boxes[part] = geometries[number].to_input_frame(found)
    elif count:
        points = np.stack([_find_points(one, geometries, rule) for one in targets])
    return ModelPrompts(
        image_index=torch.tensor([one.image for one in targets], dtype=torch.int64),
        point_coords=torch.from_numpy(points),
        point_labels=torch.ones(points.shape[:2], dtype=torch.int64),
        model_boxes_xyxy=torch.from_numpy(boxes),
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


def _find_points(
    target: Target, geometries: Sequence[ImageGeometry], rule: PromptRule
) -> FloatArray:
    """(N, 2) float32, input frame."""
    instance, geometry = target.instance, geometries[target.image]
    mask = decode_mask(instance.segmentation)
    if rule.kind == "point":
        return find_center(mask, geometry, rule.click)[None]
    # Of its own for every object, so that leaving one out does not move the others' points.
    pixels = draw_pixels(mask, rule.count, seed=rule.seed * 1_000_003 + instance.annotation_id)
    return to_input_points(pixels, geometry)
