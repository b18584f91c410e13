"""Where labels go in a picture: beside their object, inside the frame, off one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.structures import IntArray

Boxes = NDArray[np.float64]

# What a place costs. One label on another is worse than anything else that can be had.
LABEL_ON_LABEL = 50.0
LABEL_ON_SMALLER_OBJECT = 4.0
LABEL_ON_LARGER_OBJECT = 0.1
NEXT_CHOICE = 0.05
DETACHED = 1.5
RING_DIRECTIONS = 16
RING_DISTANCES = (1.2, 2.4, 3.6, 5.0, 7.0)  # label heights between label and object


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """A label to place; all coordinates are pixels of the picture.

    Attributes:
        box_xyxy: the object's box.
        top_xy, bottom_xy: the object's highest and lowest point.
        middle_xy: a point well inside the object.
        left_x, right_x: where the object begins and ends at the height of that point.
        area: the object's size in pixels.
        size_wh: width and height of the label.
    """

    box_xyxy: tuple[float, float, float, float]
    top_xy: tuple[float, float]
    bottom_xy: tuple[float, float]
    middle_xy: tuple[float, float]
    left_x: float
    right_x: float
    area: float
    size_wh: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PlacedLabel:
    """Top left corner of a label, and whether a line must join it to its object."""

    xy: tuple[int, int]
    is_detached: bool


def place_labels(
    requests: Sequence[LabelRequest], frame_wh: tuple[int, int], owners: IntArray, gap: float
) -> list[PlacedLabel]:
    """Choose places one by one, smallest object first, because it has the fewest.

    Args:
        requests: the labels.
        frame_wh: width and height of the picture.
        owners: (h, w) a small copy of the picture: the request whose object is seen there, or -1.
        gap: pixels between a label and its object.

    Returns:
        One place a request, in the order of the requests; always inside the frame if it fits.
    """
    placed: dict[int, PlacedLabel] = {}
    taken = np.empty((0, 4))
    areas = np.array([request.area for request in requests], float)
    for index in sorted(range(len(requests)), key=lambda index: areas[index]):
        request = requests[index]
        corners, costs, num_near = _find_places(request, gap)
        width, height = request.size_wh
        size_wh = np.array(request.size_wh)
        corners = corners.clip(0, np.maximum(np.array(frame_wh) - size_wh, 0))
        candidates = np.concatenate([corners, corners + size_wh], axis=1)
        costs = costs + LABEL_ON_LABEL * _covered(candidates, taken) / (width * height)
        cells = candidates / np.tile(frame_wh, 2) * np.tile(owners.shape[::-1], 2)
        costs += [_price_ground(owners, cell, index, areas) for cell in cells]
        best = int(costs.argmin())
        xy = (int(corners[best, 0]), int(corners[best, 1]))
        placed[index] = PlacedLabel(xy, best >= num_near)
        # A pixel of air, so that rounding cannot bring two labels together.
        taken = np.concatenate([taken, [[*xy, xy[0] + width + 1, xy[1] + height + 1]]])
    return [placed[index] for index in range(len(requests))]


def _find_places(request: LabelRequest, gap: float) -> tuple[Boxes, NDArray[np.float64], int]:
    """Corners (C, 2) worth trying, what each costs (C,), and how many of them touch the object."""
    x0, y0, x1, y1 = request.box_xyxy
    width, height = request.size_wh
    (top_x, _), (bottom_x, _) = request.top_xy, request.bottom_xy
    middle_x, middle_y = request.middle_xy
    above, below = y0 - height - gap, y1 + gap
    near = [
        (top_x - width / 2, above),
        (bottom_x - width / 2, below),
        (request.right_x + gap, middle_y - height / 2),
        (request.left_x - width - gap, middle_y - height / 2),
        (x0, above),
        (x1 - width, above),
        (x0, below),
        (x1 - width, below),
    ]
    inside = (middle_x - width / 2, middle_y - height / 2)
    is_roomy = x1 - x0 > 1.2 * width and y1 - y0 > 3 * height
    near.insert(0 if is_roomy else len(near), inside)
    angles = np.arange(RING_DIRECTIONS) * 2 * np.pi / RING_DIRECTIONS
    rings = []
    for distance in RING_DISTANCES:
        reach_x = (x1 - x0) / 2 + width / 2 + distance * height
        reach_y = (y1 - y0) / 2 + height / 2 + distance * height
        around_x = (x0 + x1) / 2 + np.cos(angles) * reach_x - width / 2
        around_y = (y0 + y1) / 2 + np.sin(angles) * reach_y - height / 2
        rings.append(np.stack([around_x, around_y], axis=1))
    costs = [NEXT_CHOICE * place for place in range(len(near))]
    for distance in RING_DISTANCES:
        costs += [DETACHED + 0.2 * distance] * RING_DIRECTIONS
    if not is_roomy:
        costs[len(near) - 1] = DETACHED - NEXT_CHOICE  # on top of a small object: hides it
    return np.concatenate([np.array(near), *rings]), np.array(costs), len(near)


def _covered(candidates: Boxes, others: Boxes) -> NDArray[np.float64]:
    """Pixels of each of (C, 4) boxes that (O, 4) other boxes cover, summed over the others."""
    low = np.maximum(candidates[:, None, :2], others[None, :, :2])
    high = np.minimum(candidates[:, None, 2:], others[None, :, 2:])
    covered: NDArray[np.float64] = (high - low).clip(min=0).prod(axis=2).sum(axis=1)
    return covered


def _price_ground(
    owners: IntArray, cell_xyxy: Boxes, index: int, areas: NDArray[np.float64]
) -> float:
    """What a label of object `index` costs for the objects it hides, by the share it hides."""
    x0, y0 = np.floor(cell_xyxy[:2]).astype(int)
    x1, y1 = np.ceil(cell_xyxy[2:]).astype(int)
    hidden = owners[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    others = hidden[(hidden >= 0) & (hidden != index)]
    if not others.size:
        return 0.0
    is_smaller = areas[others] < areas[index]
    price = np.where(is_smaller, LABEL_ON_SMALLER_OBJECT, LABEL_ON_LARGER_OBJECT).sum()
    return float(price / hidden.size)
