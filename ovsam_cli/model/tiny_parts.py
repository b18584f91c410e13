"""The part of a mask that hangs together with the point it was asked for.

Likeness finds everything that looks like the point's place; what does not touch it is most often
another object of the kind.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ovsam_cli.model.prompt_encoder import ModelPrompts

NUM_SWEEPS = 8  # bends that a way from the point to a cell may take, twice


def keep_parts_of_points(mask_logits: Tensor, prompts: ModelPrompts, model_size: int) -> Tensor:
    """Turn to background what is not connected with a lone foreground point.

    Args:
        mask_logits: (B, h, w) float, padded model frame, foreground above 0.
        prompts: B prompts; others than lone foreground points keep their masks, and so does a
            point that its own mask does not hold.
        model_size: side of the model frame in pixels.

    Returns:
        (B, h, w) float; cells that are dropped have the sign of their logits changed.
    """
    num_points = prompts.point_labels.shape[1]
    if prompts.layout == "boxed" or (prompts.layout == "unboxed" and num_points != 1):
        return mask_logits
    is_foreground = (prompts.point_labels == 1).any(dim=1) & prompts.is_lone_point
    if prompts.layout == "unboxed":  # all, so that a device need not be asked which
        rows = torch.arange(len(is_foreground), device=is_foreground.device)
    else:
        rows = is_foreground.nonzero()[:, 0]
    if len(rows) == 0:
        return mask_logits
    own, kept = mask_logits[rows], mask_logits.clone()
    slots = prompts.point_labels[rows].argmax(dim=1)  # the others are filler, -1
    places = prompts.point_coords[rows, slots]  # (B, 2)
    height, width = mask_logits.shape[1:]
    x, y = places.unbind(dim=1)
    x, y = ((at * side / model_size).long().clamp(min=0) for at, side in ((x, width), (y, height)))
    start = torch.zeros_like(own, dtype=torch.bool)
    numbers = torch.arange(len(rows), device=own.device)
    start[numbers, y.clamp(max=height - 1), x.clamp(max=width - 1)] = True
    part = find_part(own > 0, start)
    has_part = is_foreground[rows] & part.flatten(1).any(dim=1)
    is_lost = (own > 0) & ~part & has_part[:, None, None]
    kept[rows] = torch.where(is_lost, -own, own)
    return kept


def find_part(is_inside: Tensor, start: Tensor) -> Tensor:
    """What of a mask can be reached from a start by its cells' sides.

    Whole runs of cells are reached at once, along rows and columns in turns, so that the number of
    turns depends on how often a way bends and not on how long it is. Ways of more bends than
    `NUM_SWEEPS` allows, as in a spiral, are not gone to their end.

    Args:
        is_inside: (B, h, w) bool.
        start: (B, h, w) bool.

    Returns:
        (B, h, w) bool; nothing where the start is not inside.
    """
    rows, columns = _number_runs(is_inside), _number_runs(is_inside.transpose(1, 2))
    reached = start & is_inside
    for _ in range(NUM_SWEEPS):
        reached = _fill_runs(reached, rows) & is_inside
        reached = _fill_runs(reached.transpose(1, 2), columns).transpose(1, 2) & is_inside
    return reached


def _number_runs(is_inside: Tensor) -> Tensor:
    """(B, h, w) int64: which run of equal cells of its row each cell belongs to, from 0."""
    changes = is_inside[..., 1:] != is_inside[..., :-1]
    return F.pad(changes.long().cumsum(dim=2), (1, 0))


def _fill_runs(reached: Tensor, runs: Tensor) -> Tensor:
    """(B, h, w) bool: the runs of which any cell is reached."""
    counts = torch.zeros_like(runs, dtype=torch.float32)
    counts = counts.scatter_add(2, runs, reached.float())
    return counts.gather(2, runs) > 0
