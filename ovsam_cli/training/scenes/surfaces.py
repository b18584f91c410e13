"""Patches of texture of any size: photographs, colored fields, woven and geometric patterns."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovsam_cli.training.scenes.sprites import UInt8Array
from ovsam_cli.training.scenes.textures import TextureBank

FloatArray = npt.NDArray[np.float32]


def sample_surface(
    bank: TextureBank, rng: np.random.Generator, hw: tuple[int, int], *, photo_share: float
) -> UInt8Array:
    """One patch of a random kind, colors jittered.

    Args:
        bank: photographs and fields.
        rng: source of the randomness.
        hw: (height, width) in pixels.
        photo_share: probability that the patch is a crop of a photograph.

    Returns:
        (H, W, 3) uint8.
    """
    draw = rng.random()
    if draw < photo_share:
        photo = bank.photos[rng.integers(len(bank.photos))]
        patch = crop_surface(photo, rng, hw)
        return jitter_colors(patch, rng, 0.35)
    rest = (draw - photo_share) / max(1e-6, 1 - photo_share)
    if rest < 0.62:
        return _colored_field(bank, rng, hw)
    if rest < 0.78:
        return _tinted_textile(bank, rng, hw)
    if rest < 0.92:
        return _pattern(bank, rng, hw)
    return _gradient(rng, hw)


def crop_surface(texture: UInt8Array, rng: np.random.Generator, hw: tuple[int, int]) -> UInt8Array:
    """A random crop of a texture, scaled, turned by quarters and flipped.

    Args:
        texture: (H, W, 3) uint8.
        rng: source of the randomness.
        hw: (height, width) of the patch in pixels.
    """
    height, width = hw
    if rng.random() < 0.3:
        texture = np.swapaxes(texture, 0, 1)
    if rng.random() < 0.5:
        texture = texture[:, ::-1]
    full_h, full_w = texture.shape[:2]
    # Between half and three times the texture's own resolution, never more than it has.
    zoom = float(np.exp(rng.uniform(np.log(0.5), np.log(3.0))))
    crop_h, crop_w = height / zoom, width / zoom
    shrink = min(1.0, full_h / crop_h, full_w / crop_w)
    crop_h, crop_w = max(2.0, crop_h * shrink), max(2.0, crop_w * shrink)
    top = rng.uniform(0, max(0.0, full_h - crop_h))
    left = rng.uniform(0, max(0.0, full_w - crop_w))
    rows = slice(int(top), max(int(top) + 2, int(top + crop_h)))
    columns = slice(int(left), max(int(left) + 2, int(left + crop_w)))
    patch = Image.fromarray(np.ascontiguousarray(texture[rows, columns]))
    return np.asarray(patch.resize((width, height), Image.Resampling.BILINEAR))


def jitter_colors(patch: UInt8Array, rng: np.random.Generator, strength: float) -> UInt8Array:
    """Random gain a channel, contrast and brightness, as one lookup table a channel.

    Args:
        patch: (H, W, 3) uint8.
        rng: source of the randomness.
        strength: standard deviation of the logarithm of the gains, about.
    """
    levels = np.arange(256, dtype=np.float32)
    middle = float(patch[::7, ::7].mean())
    contrast = np.exp(rng.normal(0, strength * 0.6))
    brightness = np.exp(rng.normal(0, strength * 0.6))
    gains = np.exp(rng.normal(0, strength * 0.35, 3)) * brightness
    out = np.empty_like(patch)
    for channel in range(3):
        table = ((levels - middle) * contrast + middle) * gains[channel]
        out[..., channel] = table.clip(0, 255).astype(np.uint8)[patch[..., channel]]
    return out


def clip_to_uint8(levels: npt.NDArray[np.floating]) -> UInt8Array:
    """Levels of any float type, cut to 0..255."""
    clipped: UInt8Array = levels.clip(0, 255).astype(np.uint8)
    return clipped


def random_color(rng: np.random.Generator) -> FloatArray:
    """(3,) float32 RGB in 0..255; mostly of low saturation, as in photographs."""
    gray = rng.uniform(15, 240)
    tint = rng.normal(0, 1, 3)
    spread = abs(rng.normal(0, 28)) if rng.random() < 0.7 else rng.uniform(30, 110)
    color: FloatArray = (gray + (tint - tint.mean()) * spread).clip(0, 255).astype(np.float32)
    return color


def crop_field(bank: TextureBank, rng: np.random.Generator, hw: tuple[int, int]) -> UInt8Array:
    """(H, W) uint8 crop of a random field, flipped and turned, wrapped where it is too small."""
    field = bank.fields[rng.integers(len(bank.fields))]
    if rng.random() < 0.5:
        field = field.T
    size = len(field)
    height, width = hw
    rows = (rng.integers(size) + np.arange(height)) % size
    columns = (rng.integers(size) + np.arange(width)) % size
    return np.ascontiguousarray(field[rows[:, None], columns[None, :]])


def _colored_field(bank: TextureBank, rng: np.random.Generator, hw: tuple[int, int]) -> UInt8Array:
    field = crop_field(bank, rng, hw)
    if rng.random() < 0.6:
        # A row of a photograph, sorted by brightness, is a palette that nature uses.
        photo = bank.photos[rng.integers(len(bank.photos))]
        colors = photo[rng.integers(len(photo)), rng.integers(photo.shape[1], size=5)]
        stops = colors[np.argsort(colors.sum(-1))].astype(np.float32)
    else:
        base = random_color(rng)
        stops = np.stack([base + rng.normal(0, 30, 3) for _ in range(rng.integers(2, 5))])
    positions = np.linspace(0, 255, len(stops))
    levels = np.arange(256)
    table = np.stack([np.interp(levels, positions, stops[:, c]) for c in range(3)], -1)
    patch = table.clip(0, 255).astype(np.uint8)[field]
    if rng.random() < 0.5:
        # A second, finer field keeps large patches from looking like airbrush.
        grain = crop_field(bank, rng, hw).astype(np.float32)[..., None] - 127.5
        patch = (patch + grain * rng.uniform(0.05, 0.3)).clip(0, 255).astype(np.uint8)
    return patch


def _tinted_textile(bank: TextureBank, rng: np.random.Generator, hw: tuple[int, int]) -> UInt8Array:
    patch = crop_surface(bank.textiles[rng.integers(len(bank.textiles))], rng, hw)
    gray = patch.mean(-1, keepdims=True) / 255.0
    dark, light = random_color(rng), random_color(rng)
    return clip_to_uint8(dark * (1 - gray) + light * gray)


def _pattern(bank: TextureBank, rng: np.random.Generator, hw: tuple[int, int]) -> UInt8Array:
    """Stripes, checks, dots or bricks, of two surfaces' colors with some grain."""
    rows, columns = np.mgrid[: hw[0], : hw[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi) if rng.random() < 0.5 else 0.0
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    period = float(np.exp(rng.uniform(np.log(5), np.log(90))))
    duty = rng.uniform(0.15, 0.85)
    kind = rng.integers(4)
    if kind == 0:
        chosen = (along / period) % 1 < duty
    elif kind == 1:
        chosen = ((along / period) % 1 < 0.5) ^ ((across / period) % 1 < 0.5)
    elif kind == 2:
        dots = ((along / period) % 1 - 0.5) ** 2 + ((across / period) % 1 - 0.5) ** 2
        chosen = dots < (duty * 0.45) ** 2
    else:
        course = np.floor(across / period)
        joint_x = (along / (period * 2.2) + 0.5 * (course % 2)) % 1
        chosen = (joint_x < 0.05) | ((across / period) % 1 < 0.1)
    mixed = np.where(chosen[..., None], random_color(rng), random_color(rng))
    grain = crop_field(bank, rng, hw).astype(np.float32)[..., None] - 127.5
    return clip_to_uint8(mixed + grain * rng.uniform(0.02, 0.25))


def _gradient(rng: np.random.Generator, hw: tuple[int, int]) -> UInt8Array:
    rows, columns = np.mgrid[: hw[0], : hw[1]].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = columns * np.cos(angle) + rows * np.sin(angle)
    ramp = ((ramp - ramp.min()) / max(1e-6, float(np.ptp(ramp))))[..., None]
    mixed = random_color(rng) * (1 - ramp) + random_color(rng) * ramp
    return clip_to_uint8(mixed)
