"""The fast JPEG decoder gives Pillow's pixels, and leaves to Pillow what it should not judge."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import photo
from PIL import Image

from ovsam_cli import decoding
from ovsam_cli.errors import ImageError
from ovsam_cli.images import read_image

pytest.importorskip("simplejpeg")
SIZES = [(48, 64), (47, 63), (1, 1), (3, 17), (16, 9), (250, 131)]
KINDS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether the fast decoder took the file, one a call."""
    found: list[bool] = []
    decode = decoding._decode_jpeg

    def count(*arguments: object) -> np.ndarray | None:
        rgb = decode(*arguments)
        found.append(rgb is not None)
        return rgb

    monkeypatch.setattr(decoding, "_decode_jpeg", count)
    yield found


def noisy_photo(height: int, width: int) -> np.ndarray:
    """Smooth and rough parts of all colors."""
    rng = np.random.default_rng(height * 1000 + width)
    smooth = np.array(photo(height, width), np.int16)
    return (smooth + rng.integers(-40, 40, smooth.shape)).clip(0, 255).astype(np.uint8)


def pillow_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("hw", SIZES, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "gray"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 35}], ids=str)
def test_pixels_are_pillows(
    tmp_path: Path, hw: tuple[int, int], kind: str, options: dict[str, int], calls: list[bool]
) -> None:
    image = Image.fromarray(noisy_photo(*hw))
    if kind == "gray":
        image.convert("L").save(tmp_path / "a.jpg", **options)
    else:
        image.save(tmp_path / "a.jpg", subsampling=KINDS[kind], **options)
    assert np.array_equal(read_image(tmp_path / "a.jpg").rgb, pillow_pixels(tmp_path / "a.jpg"))
    assert calls == [True]


def test_restart_markers_and_rgb_inside(tmp_path: Path, calls: list[bool]) -> None:
    image = Image.fromarray(noisy_photo(120, 90))
    image.save(tmp_path / "restarts.jpg", restart_marker_blocks=2)
    image.save(tmp_path / "rgb.jpg", keep_rgb=True)
    for name in ("restarts.jpg", "rgb.jpg"):
        assert np.array_equal(read_image(tmp_path / name).rgb, pillow_pixels(tmp_path / name))
    assert calls == [True, True]


@pytest.mark.parametrize("tag", range(1, 9))
def test_turned_as_pillow_turns(tmp_path: Path, tag: int, calls: list[bool]) -> None:
    from PIL import ImageOps

    image, path = Image.fromarray(noisy_photo(40, 56)), tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = tag
    image.save(path, exif=exif)
    with Image.open(path) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    decoded = read_image(path)
    assert np.array_equal(decoded.rgb, upright) and decoded.rgb.flags.c_contiguous
    assert np.array_equal(read_image(path, apply_exif=False).rgb, pillow_pixels(path))
    assert calls == [True, True] and not decoded.rgb.flags.writeable


def test_cmyk_and_other_formats_are_pillows(tmp_path: Path, calls: list[bool]) -> None:
    image = Image.fromarray(noisy_photo(40, 56))
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "a.png")
    decoded = read_image(tmp_path / "cmyk.jpg")
    assert np.array_equal(decoded.rgb, pillow_pixels(tmp_path / "cmyk.jpg"))
    assert decoded.warnings == ("CMYK converted without its color profile",)
    assert np.array_equal(read_image(tmp_path / "a.png").rgb, np.asarray(image))
    assert calls == [False, False]


def damage_in_the_middle(data: bytes) -> bytes:
    start = len(data) * 2 // 3
    return data[:start] + bytes(40) + data[start + 40 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-2],
        lambda data: data + b"trailing",
        damage_in_the_middle,
    ],
    ids=["half", "no end", "trailing", "middle"],
)
def test_damaged_files_are_judged_by_pillow(
    tmp_path: Path, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO()
    Image.fromarray(noisy_photo(200, 300)).save(data, "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(damage(data.getvalue()))

    def outcome() -> object:
        try:
            return read_image(path).rgb.tobytes()
        except ImageError as error:
            return error.reason, str(error)

    found = outcome()
    monkeypatch.setattr(decoding, "_find_decoder", lambda: None)
    assert found == outcome()


def test_without_the_package_pillow_decodes(
    tmp_path: Path, calls: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noisy_photo(20, 30)).save(tmp_path / "a.jpg")
    fast = read_image(tmp_path / "a.jpg")
    monkeypatch.setattr(decoding, "_find_decoder", lambda: None)
    slow = read_image(tmp_path / "a.jpg")
    assert np.array_equal(fast.rgb, slow.rgb) and calls == [True, False]
