"""What a prompt of `tiny` says about places of the frame, without looking at the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ovsam_cli.model.prompt_encoder import ModelPrompts

# Widths of the Gaussians around points, in units of a model frame of 512 pixels.
POINT_SIGMAS = (4.0, 10.0, 25.0, 60.0, 130.0)
BACKGROUND_SIGMA = 10.0
NUM_PROMPT_VALUES = 5 + len(POINT_SIGMAS) + 1
NUM_SEEDS = 24
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
_FAR = 1e9  # squared pixels to a point that is not there


def cell_centers(side: int, model_size: int, device: torch.device) -> Tensor:
    """(side * side, 2) pixel positions (x, y) of a grid's cell centers, row by row."""
    centers = (torch.arange(side, device=device) + 0.5) * (model_size / side)
    rows, columns = torch.meshgrid(centers, centers, indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


def describe_places(prompts: ModelPrompts, places: Tensor, model_size: int) -> Tensor:
    """What B prompts say about N places each.

    Args:
        prompts: B prompts.
        places: (B, N, 2) pixels (x, y), model frame; (1, N, 2) for places all share.
        model_size: side of the model frame in pixels.

    Returns:
        (B, NUM_PROMPT_VALUES, N) float: ellipse in the box, distance outside, depth inside,
        box-relative x and y (all zero without a box); Gaussians around the nearest foreground
        point, narrow to wide; a Gaussian around background points.
    """
    values, unit = [describe_box(prompts, places)], model_size / 512
    if prompts.point_coords.shape[1] == 0:
        num_values = NUM_PROMPT_VALUES - values[0].shape[1]
        values.append(values[0].new_zeros(len(values[0]), num_values, places.shape[1]))
        return torch.cat(values, dim=1)
    for label, sigmas in ((1, POINT_SIGMAS), (0, (BACKGROUND_SIGMA,))):
        distance2 = _nearest_point(prompts, label, places)  # (B, N)
        values += [torch.exp(distance2 / (-2 * (s * unit) ** 2))[:, None] for s in sigmas]
    return torch.cat(values, dim=1)


def describe_frame_of_box(prompts: ModelPrompts) -> tuple[Tensor, Tensor]:
    """Middle and half sides of B boxes, (B, 2) each; a side counts as two pixels at least."""
    boxes = prompts.model_boxes_xyxy
    return (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=1.0)


def describe_box(prompts: ModelPrompts, places: Tensor) -> Tensor:
    """(B, 5, N): the first values of `describe_places`, those of the box."""
    middle, half = describe_frame_of_box(prompts)
    offset = places - middle[:, None]  # (B, N, 2)
    x, y = (offset / half[:, None]).unbind(dim=-1)
    inside = (half[:, None] - offset.abs()).amin(dim=2)  # pixels to the nearest side
    values = [
        (1 - x.square() - y.square()).clamp(min=-3.0),
        (inside / 8).clamp(-4.0, 0.0),
        (inside / 32).clamp(0.0, 2.0),
        x.clamp(-2.0, 2.0),
        y.clamp(-2.0, 2.0),
    ]
    return torch.stack(values, dim=1) * prompts.has_box[:, None, None]


def _nearest_point(prompts: ModelPrompts, label: int, places: Tensor) -> Tensor:
    """(B, N) squared pixels to the nearest point of that label."""
    nearest = places.new_full((len(prompts.point_labels), places.shape[1]), _FAR)
    for number in range(prompts.point_coords.shape[1]):
        square = (places - prompts.point_coords[:, number : number + 1]).square().sum(dim=2)
        has_label = (prompts.point_labels[:, number] == label)[:, None]
        nearest = torch.where(has_label, torch.minimum(nearest, square), nearest)
    return nearest


def draw_seeds(prompts: ModelPrompts, model_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places that most likely belong to the object, and places that most likely do not.

    With a box these are a disc in it and a ring around it, which just leaves the corners out;
    without one, small discs around the foreground points and a grid over the frame, of which
    background points take half.

    Returns:
        Twice (B, NUM_SEEDS, 2) pixels (x, y), model frame, and (B, NUM_SEEDS) bool: which of the
        second lie in the frame. A ring that is cut off there must not turn into the object.
    """
    device, unit = prompts.model_boxes_xyxy.device, model_size / 512
    middle, half = describe_frame_of_box(prompts)
    disc, ring = _draw_disc(device), _draw_ring(device)
    has_box = prompts.has_box[:, None, None]
    # What a prompt does not say is asked of the whole frame.
    grid = cell_centers(5, model_size, device)[:NUM_SEEDS]
    foreground, background = grid.expand(len(half), -1, -1), grid.expand(len(half), -1, -1)
    if prompts.point_coords.shape[1]:
        count, near = _deal_points(prompts, 1)
        foreground = torch.where((count > 0)[:, None, None], near + 6 * unit * disc, foreground)
    foreground = torch.where(has_box, middle[:, None] + 0.75 * half[:, None] * disc, foreground)
    background = torch.where(has_box, middle[:, None] + (half[:, None] + 2) * ring, background)
    if prompts.point_coords.shape[1]:
        count, far = _deal_points(prompts, 0)
        is_even = (torch.arange(NUM_SEEDS, device=device) % 2 == 0)[:, None]
        is_taken = is_even & (count > 0)[:, None, None]
        background = torch.where(is_taken, far + 5 * unit * disc, background)
    is_seen = ((background >= 0) & (background <= model_size)).all(dim=2)
    return foreground.clamp(0, model_size), background.clamp(0, model_size), is_seen


def _draw_disc(device: torch.device) -> Tensor:
    """(NUM_SEEDS, 2) places spread evenly over the unit disc, as a sunflower's seeds."""
    number = torch.arange(NUM_SEEDS, device=device) + 0.5
    angle, radius = number * _GOLDEN_ANGLE, (number / NUM_SEEDS).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def _draw_ring(device: torch.device) -> Tensor:
    """(NUM_SEEDS, 2) places around the unit square; at 1.45 the diagonals miss its corners."""
    number = torch.arange(NUM_SEEDS, device=device)
    angle = number * (2 * math.pi / NUM_SEEDS)
    radius = torch.where(number % 2 == 0, 1.45, 1.8)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def _deal_points(prompts: ModelPrompts, label: int) -> tuple[Tensor, Tensor]:
    """Number of a prompt's points of a label (B,), and these dealt to its seeds (B, K, 2)."""
    has_label = prompts.point_labels == label  # (B, P)
    count = has_label.sum(dim=1)
    order = (~has_label).to(torch.int8).argsort(dim=1, stable=True)  # those of the label first
    slots = torch.arange(NUM_SEEDS, device=count.device) % count.clamp(min=1)[:, None]
    chosen = order.gather(1, slots)[..., None].expand(-1, -1, 2)
    return count, prompts.point_coords.gather(1, chosen)
