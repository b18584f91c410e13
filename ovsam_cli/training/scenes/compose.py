"""One composed scene in memory: drawings and filled silhouettes on a ground, with exact masks.

About half of the scenes are drawings in their own colors, which teach names; the others are
silhouettes filled with photographic surfaces, often those of the ground itself, which teach masks:
there neither color nor a paste edge gives an object away, as in photographs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ovsam_cli.structures import BoolArray
from ovsam_cli.training.scenes.appearance import (
    Light,
    SurfaceKind,
    paint,
    sample_light,
    shade,
    soften_edge,
    warp_sprite,
)
from ovsam_cli.training.scenes.clip_art import load_clip_art_sheet
from ovsam_cli.training.scenes.icons import load_icon_sheet, read_concepts
from ovsam_cli.training.scenes.photograph import photograph
from ovsam_cli.training.scenes.placement import Placement, plan_named_scene, plan_scene
from ovsam_cli.training.scenes.sidecars import SceneObject
from ovsam_cli.training.scenes.sources import HELD_OUT_VENDOR, ICON_PACKAGES, Split
from ovsam_cli.training.scenes.sprites import ALPHA_CUT, SpriteSheet, UInt8Array
from ovsam_cli.training.scenes.surfaces import sample_surface
from ovsam_cli.training.scenes.textures import TextureBank, load_texture_bank

FRAME_SIZES_HW = ((512, 512), (384, 512), (512, 384), (341, 512))
MIN_VISIBLE_AREA = 24  # pixels
MIN_VISIBLE_SHARE = 0.15  # of what the object would show if nothing stood in front
DEMO_WEIGHT = 3.0  # concepts of the demo vocabulary are drawn this much more often
PERSON_WEIGHT = 12.0  # and people still more, as in photographs


@dataclass(frozen=True, slots=True)
class SceneAssets:
    """Everything that scenes are composed of, for one split.

    Attributes:
        split: which sources these are.
        sheets: named drawings, one sheet a vendor.
        concepts: names that may be drawn.
        concept_probs: (len(concepts),) float64 that sum to 1.
        drawings: for each concept its (sheet, row) pairs.
        clip_art: drawings without names; None for `val`.
        bank: surfaces.
    """

    split: Split
    sheets: tuple[SpriteSheet, ...]
    concepts: tuple[str, ...]
    concept_probs: np.ndarray
    drawings: tuple[tuple[tuple[int, int], ...], ...]
    clip_art: SpriteSheet | None
    bank: TextureBank


@dataclass(frozen=True, slots=True)
class ComposedScene:
    """A finished scene.

    Attributes:
        rgb: (H, W, 3) uint8.
        objects: visible objects; those with an empty name teach masks only.
    """

    rgb: UInt8Array
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the objects of a group have in common."""

    rgba: UInt8Array
    name: str
    source: str
    surface: SurfaceKind


def load_scene_assets(sources: Path, split: Split) -> SceneAssets:
    """Load the drawings and surfaces of a split; the first call renders and caches them.

    Raises:
        InputError: an archive is missing or broken.
        OutputError: the cache below `sources` cannot be written.
    """
    held_out = split == "val"
    vendors = [v for v in ICON_PACKAGES if (v == HELD_OUT_VENDOR) == held_out]
    sheets = tuple(load_icon_sheet(sources, vendor) for vendor in vendors)
    in_demo = {concept.name for concept in read_concepts() if concept.in_demo}
    drawings: dict[str, list[tuple[int, int]]] = {}
    for number, sheet in enumerate(sheets):
        for row, name in enumerate(sheet.names):
            if name in in_demo or not held_out:
                drawings.setdefault(name, []).append((number, row))
    concepts = tuple(sorted(drawings))
    weights = np.array([DEMO_WEIGHT if name in in_demo else 1.0 for name in concepts])
    weights[[name == "person" for name in concepts]] = PERSON_WEIGHT
    return SceneAssets(
        split=split,
        sheets=sheets,
        concepts=concepts,
        concept_probs=weights / weights.sum(),
        drawings=tuple(tuple(drawings[name]) for name in concepts),
        clip_art=None if held_out else load_clip_art_sheet(sources),
        bank=load_texture_bank(sources, split),
    )


def compose_numbered(assets: SceneAssets, seed: int, split: Split, index: int) -> ComposedScene:
    """Scene `index`, the same for any number of processes."""
    return compose_scene(assets, scene_rng(seed, split, index))


def scene_rng(seed: int, split: Split, index: int) -> np.random.Generator:
    """The randomness of scene `index`."""
    return np.random.default_rng([seed, 0 if split == "train" else 1, index])


def compose_scene(assets: SceneAssets, rng: np.random.Generator) -> ComposedScene:
    """Compose one scene.

    Args:
        assets: drawings and surfaces; `val` assets give scenes of named drawings only.
        rng: source of all randomness: the same state gives the same scene.

    Returns:
        The scene, its longest side 512 pixels.
    """
    hw = FRAME_SIZES_HW[rng.integers(len(FRAME_SIZES_HW))]
    named_only = assets.split == "val"
    drawn = named_only or rng.random() < 0.5
    background = _sample_background(assets.bank, rng, hw)
    placements = plan_named_scene(rng, hw) if named_only else plan_scene(rng, hw)
    light = sample_light(rng)
    canvas = Image.fromarray(background)
    owners = np.full(hw, -1, np.int16)
    full_areas: list[int] = []
    kinds: dict[int, _Kind] = {}
    for number, placement in enumerate(placements):
        if placement.group not in kinds:
            kinds[placement.group] = _sample_kind(assets, rng, drawn=drawn)
        kind = kinds[placement.group]
        image = warp_sprite(kind.rgba, rng, placement.size)
        colors = paint(image, rng, kind.surface, assets.bank, background)
        alpha = soften_edge(image.getchannel("A"), rng)
        colors = shade(colors, np.asarray(alpha), light, rng)
        full_areas.append(paste_object(canvas, owners, number, colors, alpha, placement, light))
    rgb = photograph(np.asarray(canvas), rng)
    objects = []
    for number, mask in iter_visible_masks(owners, full_areas):
        kind = kinds[placements[number].group]
        objects.append(SceneObject(kind.name, kind.source, mask))
    return ComposedScene(rgb=rgb, objects=tuple(objects))


def iter_visible_masks(
    owners: np.ndarray, full_areas: Sequence[int]
) -> Iterator[tuple[int, BoolArray]]:
    """Numbers and masks of the objects of which enough is left to see.

    Args:
        owners: (H, W) int16, the number of the foremost object of each pixel, or -1.
        full_areas: how many pixels of the frame each object covers itself.
    """
    for number, full_area in enumerate(full_areas):
        mask: BoolArray = owners == number
        if int(mask.sum()) >= max(MIN_VISIBLE_AREA, MIN_VISIBLE_SHARE * full_area):
            yield number, mask


def _sample_background(
    bank: TextureBank, rng: np.random.Generator, hw: tuple[int, int]
) -> UInt8Array:
    ground = sample_surface(bank, rng, hw, photo_share=0.55)
    if rng.random() < 0.45:
        # Two surfaces that meet: wall and floor, road and meadow, sky and hills.
        other = sample_surface(bank, rng, hw, photo_share=0.55)
        rows, columns = np.mgrid[: hw[0], : hw[1]]
        slope = rng.normal(0, 0.15)
        line = hw[0] * rng.uniform(0.2, 0.8) + slope * (columns - hw[1] / 2)
        ground = np.where((rows > line)[..., None], other, ground)
    if rng.random() < 0.3:
        blurred = Image.fromarray(ground).filter(ImageFilter.GaussianBlur(rng.uniform(1.0, 5.0)))
        ground = np.asarray(blurred)
    return ground


def _sample_kind(assets: SceneAssets, rng: np.random.Generator, *, drawn: bool) -> _Kind:
    clip_art = assets.clip_art
    # In scenes of drawings nearly all objects are drawings, and the other way round.
    keeps_colors = rng.random() < (0.94 if drawn else 0.15) or assets.split == "val"
    if clip_art is not None and rng.random() < (0.12 if keeps_colors else 0.6):
        row = int(rng.integers(len(clip_art.names)))
        rgba, name, source = clip_art.rgba[row], clip_art.names[row], clip_art.sources[row]
    else:
        concept = int(rng.choice(len(assets.concepts), p=assets.concept_probs))
        choices = assets.drawings[concept]
        sheet_number, row = choices[rng.integers(len(choices))]
        sheet = assets.sheets[sheet_number]
        rgba, name, source = sheet.rgba[row], assets.concepts[concept], sheet.sources[row]
    if keeps_colors:
        return _Kind(rgba, name, source, "drawing")
    surfaces: tuple[SurfaceKind, ...] = ("textured", "patched", "camouflage")
    return _Kind(rgba, "", source, surfaces[rng.choice(3, p=(0.4, 0.3, 0.3))])


def paste_object(
    canvas: Image.Image,
    owners: np.ndarray,
    number: int,
    colors: UInt8Array,
    alpha: Image.Image,
    placement: Placement,
    light: Light,
) -> int:
    """Draw an object and its shadow, and claim its pixels; both canvases change in place.

    Args:
        canvas: the scene so far, RGB.
        owners: (H, W) int16, the number of the foremost object of each pixel, or -1.
        number: of this object.
        colors: (h, w, 3) uint8.
        alpha: L picture of the same size; from ALPHA_CUT on a pixel is the object's.
        placement: where its center lies.
        light: light of the scene.

    Returns:
        How many pixels of the frame the object covers.
    """
    left = round(placement.center_xy[0] - alpha.width / 2)
    top = round(placement.center_xy[1] - alpha.height / 2)
    if light.shadow_opacity > 0:
        _cast_shadow(canvas, alpha, (left, top), placement.size, light)
    canvas.paste(Image.fromarray(colors), (left, top), alpha)
    height, width = owners.shape
    rows = slice(*np.clip((top, top + alpha.height), 0, height).tolist())
    columns = slice(*np.clip((left, left + alpha.width), 0, width).tolist())
    covered = np.asarray(alpha)[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    covered = covered >= ALPHA_CUT
    owners[rows, columns][covered] = number
    return int(covered.sum())


def _cast_shadow(
    canvas: Image.Image, alpha: Image.Image, left_top: tuple[int, int], size: float, light: Light
) -> None:
    softness = max(0.8, size * (0.02 + 0.3 * light.shadow_length))
    pad = int(3 * softness) + 1
    shadow = Image.new("L", (alpha.width + 2 * pad, alpha.height + 2 * pad))
    shadow.paste(alpha, (pad, pad))
    shadow = shadow.filter(ImageFilter.GaussianBlur(softness))
    shadow = shadow.point([int(level * light.shadow_opacity) for level in range(256)])
    x = round(left_top[0] - pad - light.direction_xy[0] * light.shadow_length * size)
    y = round(left_top[1] - pad - light.direction_xy[1] * light.shadow_length * size)
    canvas.paste((8, 8, 12), (x, y, x + shadow.width, y + shadow.height), shadow)
