"""Crowded pages of named drawings, every one with an exact mask: many names an image.

Nearly all sizes are those that objects have in photographs, and drawings hide one another little:
a page teaches to tell things apart by what they look like, small ones too.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ovsam_cli.training.scenes.appearance import paint, sample_light, shade, soften_edge
from ovsam_cli.training.scenes.compose import (
    FRAME_SIZES_HW,
    ComposedScene,
    SceneAssets,
    iter_visible_masks,
    paste_object,
)
from ovsam_cli.training.scenes.photograph import photograph
from ovsam_cli.training.scenes.placement import Placement, order_back_to_front
from ovsam_cli.training.scenes.sidecars import SceneObject
from ovsam_cli.training.scenes.sources import Split
from ovsam_cli.training.scenes.sprites import ALPHA_CUT, UInt8Array
from ovsam_cli.training.scenes.surfaces import FloatArray, sample_surface

SIZE_RANGE = (16.0, 200.0)  # pixels, in a frame whose longest side is 512
MAX_TURN = 25.0  # degrees
NUM_DRAWINGS = (14, 40)  # wanted on a page; fewer where they find no place
NUM_PLACES_TRIED = 30
MAX_OVERLAP = 0.3  # of the smaller box; each page draws its own limit below
MAX_OUTSIDE = 0.15  # of its size, by which a drawing may leave the frame


@dataclass(frozen=True, slots=True)
class _Pose:
    """How a drawing is shown: (width, height) before the turn, the turn in degrees, mirrored."""

    width: int
    height: int
    turn: float
    mirrored: bool

    def reach(self) -> FloatArray:
        """(2,) float32: half width and half height of the box after the turn."""
        cos, sin = np.cos(np.deg2rad(self.turn)), abs(np.sin(np.deg2rad(self.turn)))
        width = self.width * cos + self.height * sin
        height = self.width * sin + self.height * cos
        return np.asarray((width / 2, height / 2), np.float32)


def compose_page(assets: SceneAssets, rng: np.random.Generator) -> ComposedScene:
    """Fill a frame with named drawings of every size.

    Args:
        assets: drawings and surfaces; drawings without names are not used.
        rng: source of all randomness: the same state gives the same page.

    Returns:
        The page, its longest side 512 pixels; every object has a name.
    """
    hw = FRAME_SIZES_HW[rng.integers(len(FRAME_SIZES_HW))]
    background = sample_surface(assets.bank, rng, hw, photo_share=0.55)
    canvas, light = Image.fromarray(background), sample_light(rng)
    owners = np.full(hw, -1, np.int16)
    low, high = np.log(SIZE_RANGE).tolist()
    sizes = np.exp(rng.uniform(low, high, rng.integers(*NUM_DRAWINGS)))
    chosen = [_choose_drawing(assets, rng) for _ in sizes]
    cropped = [_crop_drawing(assets.sheets[sheet].rgba[row]) for _, sheet, row in chosen]
    poses = [_sample_pose(image, rng, size) for image, size in zip(cropped, sizes, strict=True)]
    placements = _plan_places(rng, hw, sizes, poses)
    full_areas: list[int] = []
    for number, placement in enumerate(placements):
        image = _show(cropped[placement.group], poses[placement.group])
        colors = paint(image, rng, "drawing", assets.bank, background)
        alpha = soften_edge(image.getchannel("A"), rng)
        colors = shade(colors, np.asarray(alpha), light, rng)
        full_areas.append(paste_object(canvas, owners, number, colors, alpha, placement, light))
    rgb = photograph(np.asarray(canvas), rng)
    objects = []
    for number, mask in iter_visible_masks(owners, full_areas):
        concept, sheet, row = chosen[placements[number].group]
        objects.append(
            SceneObject(assets.concepts[concept], assets.sheets[sheet].sources[row], mask)
        )
    return ComposedScene(rgb=rgb, objects=tuple(objects))


def page_rng(seed: int, split: Split, index: int) -> np.random.Generator:
    """The randomness of page `index`; other than that of the composed scene of the same number."""
    return np.random.default_rng([seed, 2 if split == "train" else 3, index])


def compose_numbered_page(
    assets: SceneAssets, seed: int, split: Split, index: int
) -> ComposedScene:
    """Page `index`, the same for any number of processes."""
    return compose_page(assets, page_rng(seed, split, index))


def _choose_drawing(assets: SceneAssets, rng: np.random.Generator) -> tuple[int, int, int]:
    """Rows of a concept, of a sheet, and of a drawing in that sheet."""
    concept = int(rng.choice(len(assets.concepts), p=assets.concept_probs))
    choices = assets.drawings[concept]
    sheet, row = choices[rng.integers(len(choices))]
    return concept, sheet, row


def _crop_drawing(rgba: UInt8Array) -> Image.Image:
    """The content of a sprite, without the empty border."""
    opaque = rgba[..., 3] >= ALPHA_CUT
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    content = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Image.fromarray(np.ascontiguousarray(content))


def _sample_pose(image: Image.Image, rng: np.random.Generator, size: float) -> _Pose:
    """`size` is the geometric mean of width and height."""
    stretch = float(np.exp(rng.normal(0, 0.1)))
    scale = size / float(np.sqrt(image.width * image.height))
    return _Pose(
        width=max(3, round(image.width * scale * stretch)),
        height=max(3, round(image.height * scale / stretch)),
        turn=float(rng.uniform(-MAX_TURN, MAX_TURN)) if rng.random() < 0.7 else 0.0,
        mirrored=bool(rng.random() < 0.5),
    )


def _plan_places(
    rng: np.random.Generator, hw: tuple[int, int], sizes: np.ndarray, poses: list[_Pose]
) -> list[Placement]:
    """Places from back to front; `group` is the row of a drawing. Large ones choose first."""
    limit = float(rng.uniform(0.0, MAX_OVERLAP))
    boxes = [np.zeros(4)]  # one of no area, so that there is always something to compare with
    placements: list[Placement] = []
    for row in np.argsort(sizes)[::-1].tolist():
        reach, size = poses[row].reach(), float(sizes[row])
        inset = reach - MAX_OUTSIDE * size
        far = np.maximum(np.asarray(hw[::-1], np.float32) - inset, inset)
        centers = rng.uniform(inset, far, (NUM_PLACES_TRIED, 2))
        tried = np.concatenate((centers - reach, centers + reach), 1)  # (places, 4)
        free = np.flatnonzero((_shared_parts(tried, np.stack(boxes)) <= limit).all(1))
        if len(free):
            x, y = centers[free[0]].tolist()
            boxes.append(tried[free[0]])
            placements.append(Placement(row, size, (x, y)))
    return order_back_to_front(rng, placements)


def _show(image: Image.Image, pose: _Pose) -> Image.Image:
    shown = image.resize((pose.width, pose.height), Image.Resampling.BICUBIC)
    if pose.mirrored:
        shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if pose.turn:
        shown = shown.rotate(pose.turn, Image.Resampling.BICUBIC, expand=True)
    return shown


def _shared_parts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, m) shared area of boxes (n, 4) and (m, 4), each as a share of the smaller box."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    smaller = np.minimum(areas[0][:, None], areas[1][None]).clip(min=1.0)
    shared: np.ndarray = (high - low).clip(min=0).prod(2) / smaller
    return shared
