"""What a camera does to a finished scene, so that no trace of the pasting is left."""

import io

import numpy as np
from PIL import Image, ImageFilter

from ovsam_cli.training.scenes.sprites import UInt8Array
from ovsam_cli.training.scenes.surfaces import FloatArray, clip_to_uint8


def photograph(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Uneven light, white balance, contrast, blur, sensor noise, and JPEG, all at random.

    Args:
        rgb: (H, W, 3) uint8.
        rng: source of the randomness.

    Returns:
        (H, W, 3) uint8; no pixel moves.
    """
    lit = rgb * _light_field(rng, rgb.shape[:2])
    gains = np.exp(rng.normal(0, 0.07, 3)) * np.exp(rng.normal(0, 0.12))
    levels = (lit * (gains / 255.0).astype(np.float32)).clip(0.0, 1.0)
    levels **= np.float32(np.exp(rng.normal(0, 0.15)))
    image = Image.fromarray((levels * 255).astype(np.uint8))
    blur = rng.random()
    if blur < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.1))))
    elif blur < 0.62:
        # A camera with fewer pixels.
        scale = rng.uniform(0.55, 0.9)
        small = (round(image.width * scale), round(image.height * scale))
        image = image.resize(small, Image.Resampling.BILINEAR).resize(
            image.size, Image.Resampling.BICUBIC
        )
    noisy = _add_noise(np.asarray(image, np.float32), rng)
    return _compress(noisy, rng)


def _light_field(rng: np.random.Generator, hw: tuple[int, int]) -> FloatArray:
    """(H, W, 1) float32 around 1: a soft random slope, sometimes patches of light and shade."""
    coarse = np.exp(rng.normal(0, rng.uniform(0.02, 0.22), (3, 3))).astype(np.float32)
    field = _enlarge(coarse, hw)
    if rng.random() < 0.25:
        patches = np.exp(rng.normal(0, rng.uniform(0.1, 0.35), (7, 9))).astype(np.float32)
        field = field * _enlarge(patches, hw)
    return field[..., None]


def _enlarge(coarse: FloatArray, hw: tuple[int, int]) -> FloatArray:
    image = Image.fromarray(coarse).resize((hw[1], hw[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _add_noise(levels: FloatArray, rng: np.random.Generator) -> UInt8Array:
    strength = abs(rng.normal(0, 5.0))
    noise = rng.standard_normal(levels.shape[:2], np.float32)[..., None]
    if rng.random() < 0.5:
        noise = noise + 0.6 * rng.standard_normal(levels.shape, np.float32)
    return clip_to_uint8(levels + noise * np.float32(strength))


def _compress(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=int(rng.integers(50, 96)))
    return np.asarray(Image.open(buffer).convert("RGB"))
