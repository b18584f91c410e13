"""Surfaces: photographs and textures of the source packages, and noise shaped like them.

Real photographs are few here, so each also lends its colors to procedural fields: a field is a
random picture with a power spectrum like that of natural images, colored by a photograph.
"""

import base64
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ovsam_cli.errors import InputError
from ovsam_cli.training.scenes.sources import (
    PANORAMA_PACKAGE,
    ROBOSUITE_PACKAGE,
    SKIMAGE_PACKAGE,
    SKLEARN_PACKAGE,
    TEXTILE_PACKAGE,
    Split,
    find_archive,
    missing_extra,
    open_zip,
    read_tar_member,
)
from ovsam_cli.training.scenes.sprites import UInt8Array

FIELD_SIZE = 768  # pixels
NUM_FIELDS = 28
MAX_PHOTO_SIDE = 1024
NUM_TEXTILES = 120
HELD_OUT_EVERY = 8  # every eighth photograph is for validation scenes only
_SKIMAGE_FILES = (
    # Not the photos of examples/, and none without a stated licence.
    "brick.png grass.png gravel.png hubble_deep_field.jpg"
).split()
_SKIPPED_ROBOSUITE = frozenset({"can.png", "cereal.png", "soda.png", "glass.png"})  # labels, flat


@dataclass(frozen=True, slots=True)
class TextureBank:
    """Everything that surfaces are made of.

    Attributes:
        photos: each (H, W, 3) uint8, of any size.
        textiles: each (H, W, 3) uint8, plain woven texture without color of its own.
        fields: (NUM_FIELDS, FIELD_SIZE, FIELD_SIZE) uint8, uniform histogram.
    """

    photos: tuple[UInt8Array, ...]
    textiles: tuple[UInt8Array, ...]
    fields: UInt8Array


def load_texture_bank(sources: Path, split: Split) -> TextureBank:
    """Read the photographs of a split and make the fields.

    JPEG or PNG files in `sources/photos` join in, for those who have photographs of their own.

    Raises:
        InputError: an archive is missing or broken.
    """
    photos = list(_iter_photos(sources))
    textiles = list(_iter_textiles(sources))
    held_out = split == "val"
    return TextureBank(
        photos=tuple(p for i, p in enumerate(photos) if (i % HELD_OUT_EVERY == 0) == held_out),
        textiles=tuple(p for i, p in enumerate(textiles) if (i % HELD_OUT_EVERY == 0) == held_out),
        fields=build_fields(np.random.default_rng([7, int(held_out)])),
    )


def build_fields(rng: np.random.Generator, size: int = FIELD_SIZE) -> UInt8Array:
    """Random fields with spectra from 1/f^0.7 (gritty) to 1/f^2.2 (cloudy), some of them streaky.

    Args:
        rng: source of the randomness.
        size: side in pixels.

    Returns:
        (NUM_FIELDS, size, size) uint8, tileable, each with a uniform histogram.
    """
    frequency_y = np.fft.fftfreq(size)[:, None]
    frequency_x = np.fft.rfftfreq(size)[None, :]
    fields = np.empty((NUM_FIELDS, size, size), np.uint8)
    for number in range(NUM_FIELDS):
        # Stretching one frequency axis makes the streaks of wood, grass, water and fur.
        stretch = 1.0 if rng.random() < 0.6 else float(np.exp(rng.uniform(0.7, 2.5)))
        radius = np.hypot(frequency_y * stretch, frequency_x)
        radius[0, 0] = 1.0
        spectrum = rng.standard_normal(radius.shape) + 1j * rng.standard_normal(radius.shape)
        spectrum *= radius ** -rng.uniform(0.7, 2.2)
        if rng.random() < 0.35:  # a band of preferred sizes: scales, pebbles, leaves
            center = np.exp(rng.uniform(np.log(0.01), np.log(0.12)))
            spectrum *= 0.15 + np.exp(-((np.log(radius / center) / 0.5) ** 2))
        field = np.fft.irfft2(spectrum, s=(size, size))
        if rng.random() < 0.3:
            field = np.abs(field)  # ridges: marble, veins, cracked ground
        cuts = np.quantile(field[::3, ::3], np.linspace(0.0, 1.0, 257)[1:-1])
        fields[number] = np.searchsorted(cuts, field.ravel()).reshape(size, size)
    return fields


def _iter_photos(sources: Path) -> Iterator[UInt8Array]:
    with open_zip(find_archive(sources, ROBOSUITE_PACKAGE)) as wheel:
        for name in sorted(wheel.namelist()):
            folder, _, file_name = name.rpartition("/")
            if folder.endswith("assets/textures") and file_name not in _SKIPPED_ROBOSUITE:
                yield _read_photo(wheel.read(name), name)
    with open_zip(find_archive(sources, SKLEARN_PACKAGE)) as wheel:
        for name in ("china.jpg", "flower.jpg"):
            yield _read_photo(wheel.read(f"sklearn/datasets/images/{name}"), name)
    with open_zip(find_archive(sources, SKIMAGE_PACKAGE)) as wheel:
        for name in _SKIMAGE_FILES:
            yield _read_photo(wheel.read(f"skimage/data/{name}"), name)
    yield from _iter_panoramas(sources)
    for path in sorted((sources / "photos").glob("*")):
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
            yield _read_photo(path.read_bytes(), str(path))


def _iter_textiles(sources: Path) -> Iterator[UInt8Array]:
    with open_zip(find_archive(sources, TEXTILE_PACKAGE)) as wheel:
        names = sorted(name for name in wheel.namelist() if name.endswith(".jpg"))
        for name in names[:: max(1, len(names) // NUM_TEXTILES)][:NUM_TEXTILES]:
            yield _read_photo(wheel.read(name), name)


def read_panorama(sources: Path, name: str) -> UInt8Array:
    """The middle of one panorama, tone-mapped.

    Args:
        sources: folder with the archives.
        name: such as `park`.

    Returns:
        (308, 1024, 3) uint8, soft like a ground out of focus.

    Raises:
        InputError: the archive is missing or has no such panorama.
    """
    archive = find_archive(sources, PANORAMA_PACKAGE)
    return _decode_panorama(read_tar_member(archive, f"package/hdri/{name}.exr.js"))


def read_robosuite_texture(sources: Path, file_name: str) -> UInt8Array:
    """One (H, W, 3) uint8 texture of robosuite, such as `dark-wood.png`.

    Raises:
        InputError: the archive is missing or has no such texture.
    """
    archive = find_archive(sources, ROBOSUITE_PACKAGE)
    with open_zip(archive) as wheel:
        name = f"robosuite/models/assets/textures/{file_name}"
        if name not in wheel.namelist():
            raise InputError(f"{archive}: no {name}; fetch the archive again")
        return _read_photo(wheel.read(name), name)


def _iter_panoramas(sources: Path) -> Iterator[UInt8Array]:
    with tarfile.open(find_archive(sources, PANORAMA_PACKAGE)) as opened:
        for member in sorted(opened.getmembers(), key=lambda found: found.name):
            if member.name.startswith("package/hdri/") and member.name.endswith(".exr.js"):
                extracted = opened.extractfile(member)
                if extracted is not None:
                    yield _decode_panorama(extracted.read())


def _decode_panorama(script: bytes) -> UInt8Array:
    exr = script[script.index(b"base64,") + 7 : script.rindex(b"'")]
    return _tone_map_panorama(base64.b64decode(exr))


def _tone_map_panorama(exr: bytes) -> UInt8Array:
    import tempfile

    try:
        import OpenEXR
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error

    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(exr)
        file.flush()
        with OpenEXR.File(file.name) as opened:
            radiance = np.nan_to_num(opened.channels()["RGB"].pixels.astype(np.float32))
    # The upper and lower rows of a panorama are stretched, so only the middle is a picture.
    radiance = radiance[len(radiance) // 5 : -len(radiance) // 5]
    radiance = radiance.clip(0.0, 1e4)
    exposure = 0.4 / max(float(np.median(radiance)), 1e-3)
    display = (1.0 - np.exp(-radiance * exposure)) ** (1 / 2.2)
    picture = Image.fromarray((255 * display).astype(np.uint8))
    # 512 x 154 pixels enlarged: soft like a ground out of focus.
    return np.asarray(picture.resize((1024, picture.height * 2), Image.Resampling.BICUBIC))


def _read_photo(encoded: bytes, name: str) -> UInt8Array:
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
    except OSError as error:
        raise InputError(f"{name}: not an image ({error}); fetch its package again") from error
    image.thumbnail((MAX_PHOTO_SIDE, MAX_PHOTO_SIDE))
    return np.asarray(image)
