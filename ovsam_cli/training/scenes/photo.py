"""From rendered radiance to something that looks like a photograph, saved as JPEG."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

FloatArray = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]


def develop(radiance: FloatArray, rng: np.random.Generator) -> Uint8Array:
    """Expose, tone-map and grain a rendered picture as a camera would.

    Args:
        radiance: (H, W, 3) linear light, any scale.
        rng: decides exposure, white balance, contrast, blur and noise.

    Returns:
        (H, W, 3) uint8, sRGB.
    """
    light = np.nan_to_num(radiance, posinf=50.0).clip(0.0, 50.0)
    luminance = light @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    key = float(np.exp(np.log(luminance + 1e-4).mean()))
    # The middle decides the exposure, but the brightest twentieth must keep its texture.
    exposure = float(rng.uniform(0.11, 0.25)) / max(key, 1e-4)
    brightest = float(np.percentile(luminance, 95))
    exposure = min(exposure, float(rng.uniform(0.9, 1.8)) / max(brightest, 1e-4))
    light = light * exposure
    balance = np.exp(rng.normal(0, 0.07, 3)).astype(np.float32)
    light = light * (balance / balance.mean())
    # Reinhard's extended curve: highlights roll off, white at `white`.
    white = float(rng.uniform(1.5, 4.0))
    mapped = light * (1 + light / white**2) / (1 + light)
    mapped = np.clip(mapped * float(rng.uniform(1.1, 1.4)), 0, 1)
    srgb = np.where(mapped <= 0.0031308, 12.92 * mapped, 1.055 * mapped ** (1 / 2.4) - 0.055)
    contrast = float(rng.uniform(0.9, 1.15))
    srgb = np.clip((srgb - 0.5) * contrast + 0.5, 0, 1)
    picture = Image.fromarray((srgb * 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.9))))
    noisy = np.asarray(picture, dtype=np.float32)
    noise = rng.normal(0, float(rng.uniform(0.5, 6.0)), noisy.shape)
    return (noisy + noise).clip(0, 255).astype(np.uint8)


def encode_jpeg(picture: Uint8Array, rng: np.random.Generator) -> bytes:
    """JPEG bytes of an (H, W, 3) uint8 picture, quality 70 to 95."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=int(rng.integers(70, 96)))
    return stream.getvalue()
