"""What stands where: how many objects, which, how large, in which order and place.

The sizes follow photographs (COCO: about 40 % of the objects under 32 pixels a side, a quarter over
96), not a neat page of drawings: close-ups, ordinary scenes and crowds take turns.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

SceneKind = Literal["close-up", "ordinary", "crowd"]

SMALL_SIZES = (9.0, 32.0)
MEDIUM_SIZES = (36.0, 190.0)
LARGE_SIZES = (190.0, 460.0)


@dataclass(frozen=True, slots=True)
class Placement:
    """One object to be drawn.

    Attributes:
        group: objects of a group are drawings of one kind, alike in surface.
        size: geometric mean of the sides of its box in pixels, before rotation.
        center_xy: center in pixels, original frame; may lie outside.
    """

    group: int
    size: float
    center_xy: tuple[float, float]


def plan_scene(rng: np.random.Generator, hw: tuple[int, int]) -> list[Placement]:
    """Sizes and places of the objects of a training scene, from back to front.

    Args:
        rng: source of the randomness.
        hw: (height, width) of the scene in pixels.
    """
    kinds: tuple[SceneKind, ...] = ("close-up", "ordinary", "crowd")
    kind = kinds[rng.choice(3, p=(0.47, 0.38, 0.15))]
    placements: list[Placement] = []
    for size in _single_sizes(rng, kind):
        placements.append(Placement(len(placements), size, _random_center(rng, hw, size)))
    num_crowds = int(rng.integers(1, 3)) if kind == "crowd" else int(rng.random() < 0.12)
    for crowd in range(num_crowds):
        placements += _plan_crowd(rng, hw, group=1000 + crowd)
    return order_back_to_front(rng, placements)


def plan_named_scene(rng: np.random.Generator, hw: tuple[int, int]) -> list[Placement]:
    """Fewer, larger objects that hide each other little: for scoring names.

    Args:
        rng: source of the randomness.
        hw: (height, width) of the scene in pixels.
    """
    placements: list[Placement] = []
    for group in range(int(rng.integers(4, 10))):
        size = _log_uniform(rng, 24.0, 260.0)
        # The emptiest of a few random places.
        centers = [_random_center(rng, hw, size, margin=0.3) for _ in range(12)]
        crowding = [
            max(
                ((size + other.size) / 2 / (1 + _distance(center, other)) for other in placements),
                default=0.0,
            )
            for center in centers
        ]
        placements.append(Placement(group, size, centers[int(np.argmin(crowding))]))
    return order_back_to_front(rng, placements)


def order_back_to_front(rng: np.random.Generator, placements: list[Placement]) -> list[Placement]:
    """Mostly the larger behind the smaller, so that both stay visible; sometimes the reverse."""
    keys = [np.log(found.size) + rng.normal(0, 0.45) for found in placements]
    return [placements[i] for i in np.argsort(keys)[::-1]]


def _single_sizes(rng: np.random.Generator, kind: SceneKind) -> list[float]:
    if kind == "close-up":
        counts = (int(rng.integers(0, 3)), int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    elif kind == "ordinary":
        counts = (int(rng.integers(1, 6)), int(rng.integers(4, 11)), int(rng.random() < 0.5))
    else:
        counts = (int(rng.integers(0, 4)), int(rng.integers(0, 5)), int(rng.random() < 0.3))
    sizes: list[float] = []
    for count, (low, high) in zip(counts, (SMALL_SIZES, MEDIUM_SIZES, LARGE_SIZES), strict=True):
        sizes += [_log_uniform(rng, low, high) for _ in range(count)]
    return sizes


def _plan_crowd(rng: np.random.Generator, hw: tuple[int, int], group: int) -> list[Placement]:
    """Several of one kind: in a row, on a grid with jitter, or in a heap."""
    size = _log_uniform(rng, 14.0, 120.0)
    count = int(rng.integers(4, 6 + max(1, int(500 / size))).clip(4, 12))
    pitch = size * rng.uniform(0.55, 1.5)
    center_x, center_y = _random_center(rng, hw, size)
    per_row = count if rng.random() < 0.35 else int(np.ceil(np.sqrt(count * 1.5)))
    heap = rng.random() < 0.35
    angle = rng.normal(0, 0.25)
    placements = []
    for number in range(count):
        if heap:
            along, across = rng.normal(0, pitch * np.sqrt(count) / 2.5, 2)
        else:
            along = (number % per_row - per_row / 2) * pitch + rng.normal(0, pitch * 0.12)
            across = (number // per_row) * pitch + rng.normal(0, pitch * 0.12)
        x = center_x + along * np.cos(angle) - across * np.sin(angle)
        y = center_y + along * np.sin(angle) + across * np.cos(angle)
        placements.append(Placement(group, size * float(np.exp(rng.normal(0, 0.12))), (x, y)))
    return placements


def _random_center(
    rng: np.random.Generator, hw: tuple[int, int], size: float, margin: float = 0.0
) -> tuple[float, float]:
    inset = margin * size
    x = rng.uniform(min(inset, hw[1] / 2), max(hw[1] - inset, hw[1] / 2))
    y = rng.uniform(min(inset, hw[0] / 2), max(hw[0] - inset, hw[0] / 2))
    return float(x), float(y)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _distance(center: tuple[float, float], other: Placement) -> float:
    return float(np.hypot(center[0] - other.center_xy[0], center[1] - other.center_xy[1]))
