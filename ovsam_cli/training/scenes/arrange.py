"""Arrangements of furniture, people and vehicles: rooms, table close-ups, streets and lawns."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ovsam_cli.training.scenes.catalog import FurnitureModel
from ovsam_cli.training.scenes.layout import Bounds, Camera, Placement, Stage

SceneKind = Literal["room", "table", "outdoor"]
SEATED_MIN_HEIGHT = 1.2  # a sitting figure at least this high (m) sits on a chair, not on the floor
SEAT_HEIGHT = 0.46


def choose_kind(rng: np.random.Generator) -> SceneKind:
    """What sort of scene to make."""
    value = rng.uniform()
    return "room" if value < 0.55 else "table" if value < 0.7 else "outdoor"


def arrange(kind: SceneKind, models: Sequence[FurnitureModel], rng: np.random.Generator) -> Stage:
    """Everything but the small objects, which need the renderer's rays (`layout.drop_small`)."""
    if kind == "outdoor":
        return _arrange_outdoor(models, rng)
    return _arrange_room(models, rng, close_up=kind == "table")


def _arrange_room(
    models: Sequence[FurnitureModel], rng: np.random.Generator, *, close_up: bool
) -> Stage:
    back = float(rng.uniform(3.2, 7.5))
    bounds = Bounds(
        left=-float(rng.uniform(1.5, 4.2)),
        right=float(rng.uniform(1.5, 4.2)),
        back=back,
        height=float(rng.uniform(2.4, 3.3)),
        has_walls=True,
    )
    height = float(rng.uniform(1.05, 1.7) if close_up else rng.uniform(0.6, 2.1))
    target_distance = float(rng.uniform(0.9, 1.6)) if close_up else 0.55 * back
    target_height = 0.75 if close_up else float(rng.uniform(0.45, 0.9))
    camera = Camera(
        height=height,
        pitch=math.atan2(target_height - height, target_distance) + float(rng.normal(0, 0.04)),
        roll=float(rng.normal(0, 0.02)),
        horizontal_fov=math.radians(float(rng.uniform(42, 72))),
    )
    stage = Stage(bounds, camera, models, rng)
    if close_up:
        _place_table_set(stage, 0.0, target_distance + 0.25)
    _line_walls(stage)
    _hang_on_walls(stage)
    for _ in range(int(rng.integers(1, 4))):
        _place_table_set(stage, *stage.point_in_view(1.3, back - 0.3))
    _seat_people(stage, int(rng.integers(0, 3)), 1.6, back)
    if rng.uniform() < 0.5:
        stage.scatter(int(rng.integers(1, 4)), 1.8, back, "person")
    stage.scatter(int(rng.integers(3, 8)), 1.3, back, "floor", "floor", "seat")
    stage.scatter(int(rng.integers(0, 3)), 1.2, back, "pet")
    if rng.uniform() < 0.15:
        stage.scatter(1, 1.8, back, "cycle")
    _hang_from_ceiling(stage)
    _lay_rugs(stage)
    return stage


def _place_table_set(stage: Stage, x: float, y: float) -> None:
    table = stage.choose("table")
    if table is None:
        return
    rng = stage.rng
    yaw = float(rng.choice((0.0, 0.5, 1.0, -0.5)) * math.pi + rng.normal(0, 0.25))
    placed = stage.place(table, x, y, yaw)
    if not stage.try_add(placed):
        return
    seat = stage.choose("seat")
    if seat is None or placed.size[2] < 0.5:
        return
    for side in rng.permutation(4)[: int(rng.integers(0, 5))]:
        chair = seat if rng.uniform() < 0.8 else stage.choose("seat") or seat
        angle = yaw + side * math.pi / 2
        reach = placed.size[1 if side % 2 == 0 else 0] / 2 + chair.size[1] / 2
        reach += float(rng.uniform(0.03, 0.3))
        along = float(rng.normal(0, 0.1))
        # Side 0 lies before the table (local -y); a chair there turns its back to the room.
        dx = reach * math.sin(angle) + along * math.cos(angle)
        dy = -reach * math.cos(angle) + along * math.sin(angle)
        turn = float(rng.normal(0, 0.25))
        stage.try_add(stage.place(chair, x + dx, y + dy, angle + math.pi + turn))


def _line_walls(stage: Stage) -> None:
    bounds, rng = stage.bounds, stage.rng
    walls = [
        (bounds.left, bounds.right, bounds.back, 0.0),
        (0.8, bounds.back, bounds.left, 0.5 * math.pi),
        (0.8, bounds.back, bounds.right, -0.5 * math.pi),
    ]
    for start, end, at, yaw in walls:
        position = start + float(rng.uniform(0, 0.8))
        while position < end:
            model = stage.choose("wall", "wall", "table")
            if model is None:
                return
            gap = 0.02 + model.size[1] * 0.54
            middle = position + model.size[0] / 2
            if yaw == 0.0:
                x, y = middle, at - gap
            else:
                x, y = at + math.copysign(gap, yaw), middle
            stage.try_add(stage.place(model, x, y, yaw, model.elevation))
            position += model.size[0] + float(rng.exponential(0.4))


def _hang_on_walls(stage: Stage) -> None:
    bounds, rng = stage.bounds, stage.rng
    for _ in range(int(rng.integers(3, 12))):
        model = stage.choose("hang")
        if model is None:
            return
        height = model.elevation or float(rng.uniform(0.9, 1.6))
        height = min(height, bounds.height - model.size[2] * 1.1 - 0.02)
        gap = 0.005 + model.size[1] * 0.54
        if rng.uniform() < 0.5:
            x, y, yaw = rng.uniform(bounds.left, bounds.right), bounds.back - gap, 0.0
        elif rng.uniform() < 0.5:
            x, y, yaw = bounds.left + gap, rng.uniform(1.0, bounds.back), 0.5 * math.pi
        else:
            x, y, yaw = bounds.right - gap, rng.uniform(1.0, bounds.back), -0.5 * math.pi
        stage.try_add(stage.place(model, float(x), float(y), yaw, max(0.05, height)))


def _hang_from_ceiling(stage: Stage) -> None:
    if stage.rng.uniform() > 0.4:
        return
    model = stage.choose("ceiling")
    if model is not None:
        x, y = stage.point_in_view(1.5, stage.bounds.back - 0.5)
        placed = stage.place(model, x, y, 0.0)
        z = stage.bounds.height - placed.size[2]
        stage.try_add(Placement(model, x, y, z, 0.0, placed.size))


def _lay_rugs(stage: Stage) -> None:
    if stage.rng.uniform() < 0.5:
        model = stage.choose("rug")
        if model is not None:
            x, y = stage.point_in_view(1.2, stage.bounds.back - 0.5)
            rug = stage.place(model, x, y, float(stage.rng.uniform(-0.3, 0.3)))
            # Under the furniture, so thin that legs may stand in it.
            thin = (rug.size[0], rug.size[1], min(rug.size[2], 0.012))
            if stage.bounds.contains(rug):
                stage.placements.append(Placement(model, x, y, 0.001, rug.yaw, thin))


def _seat_people(stage: Stage, count: int, near: float, far: float) -> None:
    """Figures made to sit on a chair get one under them; the pair may overlap, nothing else."""
    sitters = [
        model
        for model in stage.by_place.get("person", ())
        if model.catalog_name.startswith("sitting") and model.size[2] >= SEATED_MIN_HEIGHT
    ]
    seats = [
        model
        for model in stage.by_place.get("seat", ())
        if model.name == "chair" and 0.7 < model.size[2] < 1.1
    ]
    if not sitters or not seats:
        return
    rng = stage.rng
    for _ in range(count):
        sitter = sitters[int(rng.integers(len(sitters)))]
        chair = seats[int(rng.integers(len(seats)))]
        x, y = stage.point_in_view(near, far)
        yaw = float(rng.uniform(-math.pi, math.pi))
        seat = stage.place(chair, x, y, yaw)
        body = stage.place(sitter, x, y, yaw)
        # The backs line up: a figure's legs reach out in front of the seat.
        forward = (body.size[1] - seat.size[1]) / 2 + 0.08
        body = Placement(
            sitter, x + forward * math.sin(yaw), y - forward * math.cos(yaw), 0.0, yaw, body.size
        )
        before = len(stage.placements)
        if stage.try_add(body):
            stage.placements.pop()
            if stage.try_add(seat):
                stage.placements.append(body)
            else:
                del stage.placements[before:]


def _arrange_outdoor(models: Sequence[FurnitureModel], rng: np.random.Generator) -> Stage:
    back = float(rng.uniform(9, 45))
    bounds = Bounds(-60.0, 60.0, back, 12.0, False)
    height = float(rng.uniform(0.7, 3.0))
    camera = Camera(
        height=height,
        pitch=math.atan2(0.8 - height, 0.45 * back) + float(rng.normal(0, 0.03)),
        roll=float(rng.normal(0, 0.015)),
        horizontal_fov=math.radians(float(rng.uniform(38, 68))),
    )
    outdoor = [model for model in models if not _lies(model)]
    stage = Stage(bounds, camera, outdoor, rng)
    near_far = min(back, 16.0)
    if rng.uniform() < 0.75:
        _park_row(stage, float(rng.uniform(5, max(6.0, back - 4))))
    if rng.uniform() < 0.4:
        _park_row(stage, float(rng.uniform(6, max(7.0, back - 3))))
    stage.scatter(int(rng.integers(0, 3)), 6.0, back, "vehicle")
    stage.scatter(int(rng.integers(2, 9)), 3.0, back, "person")
    stage.scatter(int(rng.integers(1, 5)), 2.5, near_far, "cycle", "animal")
    stage.scatter(int(rng.integers(1, 5)), 2.0, near_far, "pet")
    stage.scatter(int(rng.integers(3, 9)), 2.5, near_far, "street")
    stage.scatter(int(rng.integers(1, 6)), 5.0, back, "tree")
    if rng.uniform() < 0.5:
        for _ in range(2):
            _place_table_set(stage, *stage.point_in_view(2.5, 9.0))
        _seat_people(stage, 2, 2.5, 9.0)
    stage.scatter(int(rng.integers(0, 4)), 2.0, 10.0, "seat")
    return stage


def _lies(model: FurnitureModel) -> bool:
    return model.catalog_name.startswith("lying") or (
        model.catalog_name.startswith("sitting") and model.size[2] < SEATED_MIN_HEIGHT
    )


def _park_row(stage: Stage, y: float) -> None:
    """Vehicles beside one another, as at a curb or in a car park."""
    rng = stage.rng
    along = rng.uniform() < 0.5
    spread = y * math.tan(stage.camera.horizontal_fov / 2) * 1.1
    x = -spread + float(rng.uniform(0, 4))
    facing = float(rng.choice((-0.5, 0.5)) if along else rng.choice((0.0, 1.0))) * math.pi
    while x < spread:
        model = stage.choose("vehicle", "vehicle", "cycle")
        if model is None:
            return
        width = model.size[1] if along else model.size[0]
        yaw = facing + float(rng.normal(0, 0.05))
        stage.try_add(stage.place(model, x + width / 2, y + float(rng.normal(0, 0.2)), yaw))
        x += width + float(rng.uniform(0.4, 1.0) + rng.exponential(1.2))
