"""Crowded pages of named drawings, for the recognition head alone: boxes and names, no masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ovsam_cli.structures import FloatArray
from ovsam_cli.training.scenes.appearance import (
    paint,
    sample_light,
    shade,
    soften_edge,
    warp_sprite,
)
from ovsam_cli.training.scenes.compose import SceneAssets
from ovsam_cli.training.scenes.photograph import photograph
from ovsam_cli.training.scenes.sprites import UInt8Array
from ovsam_cli.training.scenes.surfaces import sample_surface

SIZE_RANGE = (24.0, 240.0)
MAX_OVERLAP = 0.15  # of the smaller box
NUM_TRIES = 45


@dataclass(frozen=True, slots=True)
class NameScene:
    """(S, S, 3) uint8 picture, (n, 4) float32 boxes in pixels, (n,) names."""

    rgb: UInt8Array
    boxes_xyxy: FloatArray
    names: tuple[str, ...]


def compose_name_scene(assets: SceneAssets, size: int, rng: np.random.Generator) -> NameScene:
    """Fill a square with drawings of every size that hide one another little.

    Args:
        assets: drawings and surfaces of the training split.
        size: side in pixels.
        rng: all of the scene's randomness.
    """
    background = sample_surface(assets.bank, rng, (size, size), photo_share=0.55)
    canvas, light = Image.fromarray(background), sample_light(rng)
    boxes: list[FloatArray] = []
    names: list[str] = []
    low, high = np.log(SIZE_RANGE).tolist()
    for side in sorted(np.exp(rng.uniform(low, high, NUM_TRIES)), reverse=True):
        far = max(size - 0.95 * float(side), 1.0)
        corner = rng.uniform(-0.05 * float(side), far, 2).astype(int)
        guess = np.asarray((*corner, *(corner + side)), np.float32)
        if any(_overlap(guess, box) > MAX_OVERLAP for box in boxes):
            continue
        concept = int(rng.choice(len(assets.concepts), p=assets.concept_probs))
        drawings = assets.drawings[concept]
        sheet, row = drawings[rng.integers(len(drawings))]
        sprite = warp_sprite(assets.sheets[sheet].rgba[row], rng, 0.85 * float(side))
        alpha = soften_edge(sprite.getchannel("A"), rng)
        colors = paint(sprite, rng, "drawing", assets.bank, background)
        colors = shade(colors, np.asarray(alpha), light, rng)
        tight = alpha.point([255 * (level >= 128) for level in range(256)]).getbbox()
        if tight is None:
            continue
        canvas.paste(Image.fromarray(colors), tuple(corner.tolist()), alpha)
        boxes.append((np.asarray(tight) + np.tile(corner, 2)).clip(0, size).astype(np.float32))
        names.append(assets.concepts[concept])
    return NameScene(photograph(np.asarray(canvas), rng), np.stack(boxes), tuple(names))


def _overlap(first: FloatArray, second: FloatArray) -> float:
    """Shared area as a share of the smaller box."""
    shared = (np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])).clip(min=0)
    areas = [float(np.prod(box[2:] - box[:2])) for box in (first, second)]
    return float(np.prod(shared)) / max(min(areas), 1.0)
