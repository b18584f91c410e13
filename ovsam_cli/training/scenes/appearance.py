"""How one object looks: a drawing turned and scaled, then colored or filled, and shaded."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from ovsam_cli.training.scenes.sprites import ALPHA_CUT, UInt8Array
from ovsam_cli.training.scenes.surfaces import (
    clip_to_uint8,
    crop_surface,
    jitter_colors,
    sample_surface,
)
from ovsam_cli.training.scenes.textures import TextureBank

SurfaceKind = Literal["drawing", "textured", "patched", "camouflage"]


@dataclass(frozen=True, slots=True)
class Light:
    """Light of a scene.

    Attributes:
        direction_xy: unit vector in the image plane, from where the light comes.
        relief: how strongly rounded objects shade, 0 for flat.
        shadow_opacity: 0 for no shadow, 1 for black.
        shadow_length: offset of a shadow as a share of the object's size.
    """

    direction_xy: tuple[float, float]
    relief: float
    shadow_opacity: float
    shadow_length: float


def sample_light(rng: np.random.Generator) -> Light:
    """A random light; about a fifth of the scenes has flat light without shadows."""
    angle = rng.uniform(0, 2 * np.pi)
    flat = rng.random() < 0.2
    return Light(
        direction_xy=(float(np.cos(angle)), float(np.sin(angle))),
        relief=0.0 if flat else float(rng.uniform(0.3, 1.6)),
        shadow_opacity=0.0 if flat else float(rng.uniform(0.1, 0.65)),
        shadow_length=float(rng.uniform(0.0, 0.16)),
    )


def warp_sprite(rgba: UInt8Array, rng: np.random.Generator, size: float) -> Image.Image:
    """Crop a sprite to its content, then scale, stretch, flip and turn it.

    Args:
        rgba: (S, S, 4) uint8.
        rng: source of the randomness.
        size: wanted geometric mean of the sides of its box in pixels.

    Returns:
        RGBA picture of any size.
    """
    image = Image.fromarray(np.ascontiguousarray(rgba))
    box = image.getchannel("A").point(_CUT_TABLE).getbbox() or (0, 0, *image.size)
    image = image.crop(box)
    stretch = float(np.exp(rng.normal(0, 0.1)))
    scale = size / float(np.sqrt(image.width * image.height))
    scale = min(scale, 620 / max(image.size))
    width = max(3, round(image.width * scale * stretch))
    height = max(3, round(image.height * scale / stretch))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn = rng.random()
    if turn < 0.6:
        angle = rng.normal(0, 9) if turn < 0.45 else rng.uniform(-180, 180)
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    if scale > 1.3:
        # Enlarging smears the edge of the drawing; a steeper alpha brings it back.
        alpha = image.getchannel("A").point(_steeper_table(min(scale, 4.0)))
        image.putalpha(alpha)
    return image


def paint(
    image: Image.Image,
    rng: np.random.Generator,
    kind: SurfaceKind,
    bank: TextureBank,
    background: UInt8Array,
) -> UInt8Array:
    """The colors of a warped drawing in one of four kinds.

    Args:
        image: RGBA picture.
        rng: source of the randomness.
        kind: `drawing` keeps its colors, `textured` fills it with one surface, `patched` each
            region of the drawing with another, `camouflage` with the scene's own background.
        bank: photographs and fields.
        background: (H, W, 3) uint8 of the scene.

    Returns:
        (h, w, 3) uint8.
    """
    colors: UInt8Array = np.asarray(image.convert("RGB"))
    hw = (image.height, image.width)
    if kind == "drawing":
        return _worn(jitter_colors(colors, rng, 0.22), rng, bank)
    if kind == "camouflage":
        filled = jitter_colors(crop_surface(background, rng, hw), rng, rng.uniform(0.05, 0.3))
        # Hard to see is the point; impossible to see would teach nothing.
        gain = np.exp(rng.choice((-1, 1)) * rng.uniform(0.08, 0.3))
        filled = clip_to_uint8(filled * gain)
    elif kind == "textured":
        filled = sample_surface(bank, rng, hw, photo_share=0.6)
    else:
        filled = _patchwork(image, rng, bank)
    # What is left of the drawing's own light and dark gives inner edges that are no borders.
    keep = rng.uniform(0.0, 0.55) if rng.random() < 0.7 else 0.0
    gray = colors.mean(-1, keepdims=True) - float(colors.mean())
    return clip_to_uint8(filled + keep * gray)


def shade(
    colors: UInt8Array, alpha: UInt8Array, light: Light, rng: np.random.Generator
) -> UInt8Array:
    """Darken and lighten the flanks of an object as if it were rounded.

    Args:
        colors: (h, w, 3) uint8.
        alpha: (h, w) uint8.
        light: light of the scene.
        rng: source of the randomness.
    """
    if light.relief == 0.0 or min(alpha.shape) < 6:
        return colors
    roundness = max(1.0, float(rng.uniform(0.04, 0.22)) * float(np.sqrt(alpha.size)))
    height = Image.fromarray(alpha).filter(ImageFilter.GaussianBlur(roundness))
    slope_y, slope_x = np.gradient(np.asarray(height, np.float32) / 255.0)
    toward = -(slope_x * light.direction_xy[0] + slope_y * light.direction_xy[1]) * roundness
    gain = 1.0 + (light.relief * toward * 1.5).clip(-0.55, 0.55)
    return clip_to_uint8(colors * gain[..., None])


def soften_edge(alpha: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Feather the edge by up to about two pixels; its half-way line stays in place."""
    radius = float(rng.choice((0.0, 0.4, 0.7, 1.1, 1.7), p=(0.25, 0.25, 0.25, 0.15, 0.1)))
    radius = min(radius, min(alpha.size) / 24)
    return alpha.filter(ImageFilter.GaussianBlur(radius)) if radius > 0.2 else alpha


def _worn(colors: UInt8Array, rng: np.random.Generator, bank: TextureBank) -> UInt8Array:
    """Give flat colors some of the unevenness of real surfaces."""
    if rng.random() < 0.35:
        return colors
    grain = sample_surface(bank, rng, colors.shape[:2], photo_share=0.5).astype(np.float32)
    grain = grain.mean(-1, keepdims=True)
    gain = 1.0 + (grain - grain.mean()) / 255.0 * rng.uniform(0.2, 1.0)
    return clip_to_uint8(colors * gain)


def _patchwork(image: Image.Image, rng: np.random.Generator, bank: TextureBank) -> UInt8Array:
    regions = np.asarray(
        image.convert("RGB").quantize(int(rng.integers(2, 5)), Image.Quantize.FASTOCTREE)
    )
    hw = (image.height, image.width)
    filled = np.empty((*hw, 3), np.uint8)
    for region in np.unique(regions):
        patch = sample_surface(bank, rng, hw, photo_share=0.6)
        filled[regions == region] = patch[regions == region]
    return filled


def _steeper_table(gain: float) -> list[int]:
    return [int(min(255, max(0, (level - ALPHA_CUT) * gain + ALPHA_CUT))) for level in range(256)]


_CUT_TABLE = [255 if level >= ALPHA_CUT else 0 for level in range(256)]
