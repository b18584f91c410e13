"""Prompts of a batch in groups that need no filler, and how many of them go to the device at once.

A token more takes part in attention, so prompts are never padded to the longest of their chunk:
prompts of as many points, with or without a box, with or without a mask stay among themselves.
Then every prompt is decoded as if it had come alone. No torch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ovsam_cli.structures import IntArray, Prompts

# Of the largest chunk; the smaller ones keep the filling of a remainder cheap.
CHUNK_SHARES = (1, 4, 16)


def group_by_layout(prompts: Prompts) -> list[IntArray]:
    """Rows of prompts with the same parts, in order; first the layout that comes first.

    Args:
        prompts: B prompts of any images of a batch.

    Returns:
        (n,) int64 rows a group, every row in exactly one group.
    """
    if len(prompts) == 0:
        return []
    num_points = (prompts.point_labels >= 0).sum(axis=1)
    has_mask = np.array([mask is not None for mask in prompts.masks])
    layouts = np.stack([num_points, prompts.has_box, has_mask], axis=1)
    _, first, group_of = np.unique(layouts, axis=0, return_index=True, return_inverse=True)
    group_of = group_of.reshape(-1)
    return [np.flatnonzero(group_of == group) for group in np.argsort(first)]


def without_filler(prompts: Prompts) -> Prompts:
    """The same prompts, their points first, and no more columns than the longest needs."""
    is_filler = prompts.point_labels < 0
    num_points = int((~is_filler).sum(axis=1).max(initial=0))
    order = np.argsort(is_filler, axis=1, kind="stable")[:, :num_points]
    return replace(
        prompts,
        point_coords=np.take_along_axis(prompts.point_coords, order[:, :, None], axis=1),
        point_labels=np.take_along_axis(prompts.point_labels, order, axis=1),
    )


def list_chunk_sizes(largest: int) -> list[int]:
    """The numbers of rows of fixed chunks, smallest first."""
    return sorted({max(1, largest // share) for share in CHUNK_SHARES})


def choose_chunk(num_left: int, largest: int, *, fixed: bool) -> tuple[int, int]:
    """How many prompts go next, and to how many rows they are filled up.

    Args:
        num_left: prompts that are not decoded yet, at least one.
        largest: most rows a chunk may have.
        fixed: only a few numbers of rows, as compiled graphs want them.

    Returns:
        (number of prompts, number of rows), equal unless `fixed`.
    """
    if not fixed:
        taken = min(num_left, largest)
        return taken, taken
    sizes = list_chunk_sizes(largest)
    fitting = [size for size in sizes if size <= num_left]
    if fitting:
        return fitting[-1], fitting[-1]
    return num_left, sizes[0]


def fill_up(prompts: Prompts, num_rows: int) -> Prompts:
    """Repeat the last prompt until there are `num_rows`."""
    if len(prompts) == num_rows:
        return prompts
    return prompts.take(np.minimum(np.arange(num_rows), len(prompts) - 1))
