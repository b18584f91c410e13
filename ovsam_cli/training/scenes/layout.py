"""Where things stand in a rendered scene: boxes that must not overlap, a camera that must see them.

World frame: meters, z up, the floor at z = 0; the camera stands at x = y = 0 and looks along +y.
A model's own front looks along -y. Nothing here knows the renderer: what lies under a small object
is asked of a `Probe`, which the renderer answers with rays and tests answer with a plane.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ovsam_cli.training.scenes.catalog import FurnitureModel

# (x, y, half width, half depth, yaw, height to start from, height of the object) -> z or None
Probe = Callable[[float, float, float, float, float, float, float], float | None]


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole at (0, 0, height); angles in radians, pitch negative when it looks down."""

    height: float
    pitch: float
    roll: float
    horizontal_fov: float

    def __post_init__(self) -> None:
        if not 0.0 < self.horizontal_fov < math.pi:
            raise ValueError(f"horizontal_fov is in radians, not {self.horizontal_fov}")


@dataclass(frozen=True, slots=True)
class Placement:
    """One model in the world: its base center, yaw in radians, and (width, depth, height) in m."""

    model: FurnitureModel
    x: float
    y: float
    z: float
    yaw: float
    size: tuple[float, float, float]

    def corners(self, margin: float = 0.0) -> npt.NDArray[np.float64]:
        """(4, 2) corners of the footprint, grown by `margin` meters."""
        half_w, half_d = self.size[0] / 2 + margin, self.size[1] / 2 + margin
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        local = signs * (half_w, half_d)
        turned = local @ np.array([(cos, sin), (-sin, cos)])
        return np.asarray(turned + np.array((self.x, self.y)), dtype=np.float64)


def overlaps(first: Placement, second: Placement, margin: float = 0.0) -> bool:
    """Whether two upright boxes share space (separating axes of the footprints, then heights)."""
    if first.z + first.size[2] <= second.z + 0.005 or second.z + second.size[2] <= first.z + 0.005:
        return False
    one, two = first.corners(margin), second.corners()
    for yaw in (first.yaw, second.yaw):
        for axis in ((math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))):
            a, b = one @ axis, two @ axis
            if a.max() <= b.min() or b.max() <= a.min():
                return False
    return True


@dataclass(frozen=True, slots=True)
class Bounds:
    """Walls: x from `left` to `right`, y up to `back`; `has_walls` is false outdoors."""

    left: float
    right: float
    back: float
    height: float
    has_walls: bool

    def contains(self, placement: Placement) -> bool:
        """Whether the footprint lies inside."""
        corners = placement.corners()
        inside_x = corners[:, 0].min() >= self.left and corners[:, 0].max() <= self.right
        return bool(inside_x and corners[:, 1].max() <= self.back)


@dataclass(slots=True)
class Stage:
    """A scene under construction: bounds, camera, what is placed, and what may be chosen."""

    bounds: Bounds
    camera: Camera
    models: Sequence[FurnitureModel]
    rng: np.random.Generator
    placements: list[Placement] = field(default_factory=list)
    by_place: dict[str, list[FurnitureModel]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        grouped: defaultdict[str, list[FurnitureModel]] = defaultdict(list)
        for model in self.models:
            grouped[model.place].append(model)
        self.by_place = dict(grouped)

    def choose(self, *places: str) -> FurnitureModel | None:
        """A random model of some places; names with many models do not crowd out the others."""
        candidates = [model for place in places for model in self.by_place.get(place, ())]
        if not candidates:
            return None
        counts = Counter(model.name for model in candidates)
        weights = np.array([counts[model.name] ** -0.6 for model in candidates])
        return candidates[int(self.rng.choice(len(candidates), p=weights / weights.sum()))]

    def place(
        self, model: FurnitureModel, x: float, y: float, yaw: float, z: float = 0.0
    ) -> Placement:
        """A placement of natural size with a little jitter; not yet part of the stage."""
        scale = float(self.rng.uniform(0.92, 1.08))
        width, depth, height = model.size
        return Placement(model, x, y, z, yaw, (width * scale, depth * scale, height * scale))

    def try_add(self, placement: Placement, margin: float = 0.02) -> bool:
        """Add a placement unless it overlaps another, leaves the bounds or looms at the lens."""
        if not self.bounds.contains(placement) or self.looms(placement):
            return False
        if any(overlaps(placement, other, margin) for other in self.placements):
            return False
        self.placements.append(placement)
        return True

    def looms(self, placement: Placement) -> bool:
        """Whether the box comes so near that it would fill the picture or swallow the camera."""
        corners = placement.corners()
        nearest = float(np.hypot(corners[:, 0], corners[:, 1]).min())
        center = math.hypot(placement.x, placement.y)
        reach = max(placement.size)
        above = placement.z > self.camera.height or placement.z + placement.size[2] < 0.1
        return not above and (nearest < 0.25 + 0.35 * reach or center < 0.3 + 0.7 * reach)

    def point_in_view(self, near: float, far: float, power: float = 1.0) -> tuple[float, float]:
        """A floor point inside the horizontal field of view, `near` to `far` meters away."""
        angle = self.rng.uniform(-0.52, 0.52) * self.camera.horizontal_fov
        distance = near + (far - near) * self.rng.uniform() ** power
        return float(distance * math.tan(angle)), float(distance)

    def scatter(self, count: int, near: float, far: float, *places: str) -> int:
        """Put up to `count` models of some places on the floor in view; return how many fit."""
        added = 0
        for _ in range(count * 4):
            model = self.choose(*places)
            if added >= count or model is None:
                break
            x, y = self.point_in_view(near, far)
            added += self.try_add(self.place(model, x, y, self.rng.uniform(-math.pi, math.pi)))
        return added


def drop_small(stage: Stage, probe: Probe, count: int, far: float) -> int:
    """Drop small things onto whatever is flat: floors, tables, shelves, seats, benches.

    Returns:
        How many found a place.
    """
    supports = [
        placed
        for placed in stage.placements
        if placed.model.place in {"table", "wall", "floor", "seat", "street"}
        and 0.2 < placed.size[2] < 2.3
        and math.hypot(placed.x, placed.y) < far
    ]
    tables = [placed for placed in supports if placed.model.place == "table"]
    added = attempts = 0
    while added < count and attempts < count * 5:
        attempts += 1
        model = stage.choose("top")
        if model is None:
            break
        kind = stage.rng.uniform()
        if tables and kind < 0.5:
            target: Placement | None = tables[int(stage.rng.integers(len(tables)))]
        elif supports and kind < 0.85:
            target = supports[int(stage.rng.integers(len(supports)))]
        else:
            target = None
        copies = 1 if stage.rng.uniform() < 0.75 else int(stage.rng.integers(2, 6))
        for _ in range(copies):
            added += _drop_one(stage, probe, model, target, far)
    return added


def _drop_one(
    stage: Stage, probe: Probe, model: FurnitureModel, target: Placement | None, far: float
) -> bool:
    rng = stage.rng
    yaw = float(rng.uniform(-math.pi, math.pi))
    if target is None:
        x, y = stage.point_in_view(0.9, far)
        start = 0.6
    else:
        u, v = rng.uniform(-0.46, 0.46, size=2) * target.size[:2]
        cos, sin = math.cos(target.yaw), math.sin(target.yaw)
        x, y = target.x + u * cos - v * sin, target.y + u * sin + v * cos
        top = target.z + target.size[2]
        inner = rng.uniform() < 0.4 and top > 0.9
        start = float(rng.uniform(0.3, 1.0)) * top if inner else top + 0.03
        if rng.uniform() < 0.6:
            yaw = target.yaw + float(rng.normal(0, 0.3))
    placed = stage.place(model, float(x), float(y), yaw)
    half_w, half_d = placed.size[0] / 2, placed.size[1] / 2
    z = probe(placed.x, placed.y, half_w, half_d, yaw, start, placed.size[2])
    if z is None:
        return False
    raised = Placement(model, placed.x, placed.y, z, yaw, placed.size)
    near = math.hypot(placed.x, placed.y) < max(0.35, 2.2 * max(placed.size))
    if near or not stage.bounds.contains(raised):
        return False
    # Its support is a box around it when it stands inside a shelf: only small things count here.
    smalls = [other for other in stage.placements if other.model.place == "top"]
    if any(overlaps(raised, other, 0.005) for other in smalls):
        return False
    stage.placements.append(raised)
    return True
