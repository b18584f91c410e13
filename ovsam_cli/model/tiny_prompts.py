"""What a prompt of `tiny` says by itself: an ellipse in the box, Gaussians around the points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.prompt_encoder import ModelPrompts

# Widths of the Gaussians around points, in units of a model frame of 512 pixels.
POINT_SIGMAS = (4.0, 10.0, 25.0, 60.0, 130.0)
BACKGROUND_SIGMA = 10.0
NUM_PROMPT_MAPS = 5 + len(POINT_SIGMAS) + 1


class PromptMaps(nn.Module):
    """What a prompt says about every pixel, without looking at the image.

    Args:
        model_size: side of the square model frame in pixels.
        side: of the maps.
        point_side: at which the maps of points are drawn before they are enlarged.
    """

    def __init__(self, *, model_size: int, side: int, point_side: int) -> None:
        super().__init__()
        self.model_size = model_size
        self.side = side
        self.point_side = point_side

    def forward(self, prompts: ModelPrompts) -> Tensor:
        """Draw the maps of B prompts.

        Returns:
            (B, P, side, side) float: ellipse in the box, distance outside, depth inside,
            box-relative x and y (all zero without a box); Gaussians around the nearest
            foreground point, narrow to wide; a Gaussian around background points.
        """
        box_maps = _draw_box_maps(prompts, self._centers(prompts, self.side))
        point_maps = self._draw_point_maps(prompts, self._centers(prompts, self.point_side))
        if self.side != self.point_side:
            size = (self.side, self.side)
            point_maps = F.interpolate(point_maps, size, mode="bilinear", align_corners=False)
        return torch.cat([box_maps, point_maps], dim=1)

    def _centers(self, prompts: ModelPrompts, side: int) -> Tensor:
        """(side,) pixel positions of the cell centers."""
        cells = torch.arange(side, device=prompts.model_boxes_xyxy.device)
        return (cells + 0.5) * (self.model_size / side)

    def _draw_point_maps(self, prompts: ModelPrompts, centers: Tensor) -> Tensor:
        unit = self.model_size / 512
        maps = []
        for label, sigmas in ((1, POINT_SIGMAS), (0, (BACKGROUND_SIGMA,))):
            distance2 = _nearest_point(prompts, label, centers)  # (B, side, side)
            maps += [torch.exp(distance2 / (-2 * (sigma * unit) ** 2)) for sigma in sigmas]
        return torch.stack(maps, dim=1)


class BoxMap(nn.Module):
    """Prompt maps -> dense prompt embeddings, the `box_map` of the prompt encoder."""

    def __init__(self, *, prompt_maps: PromptMaps, embed_dim: int) -> None:
        super().__init__()
        self.prompt_maps = prompt_maps
        self.lin1 = nn.Conv2d(NUM_PROMPT_MAPS, embed_dim // 2, 1)
        self.lin2 = nn.Conv2d(embed_dim // 2, embed_dim, 1)

    def forward(self, prompts: ModelPrompts) -> Tensor:
        """(B, D, side, side) of B prompts."""
        output: Tensor = self.lin2(F.relu(self.lin1(self.prompt_maps(prompts))))
        return output


def _draw_box_maps(prompts: ModelPrompts, centers: Tensor) -> Tensor:
    """(B, 5, side, side) maps of the box, zero without one; centers (side,) in pixels."""
    boxes = prompts.model_boxes_xyxy
    half = ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=1.0)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    offset_x = (centers - middle[:, :1])[:, None, :]  # (B, 1, side)
    offset_y = (centers - middle[:, 1:])[:, :, None]  # (B, side, 1)
    x, y = offset_x / half[:, :1, None], offset_y / half[:, 1:, None]
    ellipse = (1 - x.square() - y.square()).clamp(min=-3.0)
    inside = torch.minimum(
        half[:, :1, None] - offset_x.abs(), half[:, 1:, None] - offset_y.abs()
    )  # (B, side, side): pixels to the nearest side, negative outside
    maps = [
        ellipse,
        (inside / 8).clamp(-4.0, 0.0),
        (inside / 32).clamp(0.0, 2.0),
        x.clamp(-2.0, 2.0).expand_as(inside),
        y.clamp(-2.0, 2.0).expand_as(inside),
    ]
    return torch.stack(maps, dim=1) * prompts.has_box[:, None, None, None]


def _nearest_point(prompts: ModelPrompts, label: int, centers: Tensor) -> Tensor:
    """(B, side, side) squared pixels to the nearest point of that label; infinite without one."""
    offset = prompts.point_coords[:, :, None, :] - centers[:, None]  # (B, N, side, 2)
    square = offset.square()
    distance2 = square[..., 0][:, :, None, :] + square[..., 1][:, :, :, None]
    other = prompts.point_labels != label
    distance2 = distance2.masked_fill(other[..., None, None], torch.inf)
    if distance2.shape[1] == 0:
        return distance2.new_full((len(distance2), len(centers), len(centers)), torch.inf)
    return distance2.amin(dim=1)
