"""Assets of composed scenes and pages, made without any archive."""

from __future__ import annotations

import numpy as np

from ovsam_cli.training.scenes.compose import SceneAssets
from ovsam_cli.training.scenes.sources import Split
from ovsam_cli.training.scenes.sprites import SPRITE_SIZE, SpriteSheet
from ovsam_cli.training.scenes.textures import TextureBank, build_fields


def make_assets(split: Split = "train") -> SceneAssets:
    """Assets of two plain shapes and noise, without any archive."""
    rows, columns = np.mgrid[:SPRITE_SIZE, :SPRITE_SIZE] - SPRITE_SIZE // 2
    disc, bar = rows**2 + columns**2 < 100**2, (abs(rows) < 40) & (abs(columns) < 110)
    rgba = np.zeros((2, SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    rgba[0][disc] = (200, 40, 40, 255)
    rgba[1][bar] = (40, 40, 200, 255)
    sheet = SpriteSheet(names=("ball", "pencil"), sources=("test/ball", "test/pencil"), rgba=rgba)
    rng = np.random.default_rng(0)
    photos = tuple(rng.integers(0, 255, (60, 80, 3), np.uint8) for _ in range(2))
    return SceneAssets(
        split=split,
        sheets=(sheet,),
        concepts=("ball", "pencil"),
        concept_probs=np.array([0.5, 0.5]),
        drawings=(((0, 0),), ((0, 1),)),
        clip_art=sheet if split == "train" else None,
        bank=TextureBank(photos=photos, textiles=photos, fields=build_fields(rng, size=64)),
    )
