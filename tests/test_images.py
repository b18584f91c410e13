"""Finding, reading and preprocessing images."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import photo
from golden.make_resize_golden import SIZES, make_image
from PIL import Image

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.image_paths import find_images
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.raster import resize_bilinear, scale_deep_gray

GOLDEN = Path(__file__).parent / "golden"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
WriteImage = Callable[..., Path]


def names(*arguments: str | Path) -> list[str]:
    return [record.file_name for record in find_images([str(item) for item in arguments])]


# --- find_images


def test_folder_is_searched_recursively_in_sorted_order(
    image_file: WriteImage, tmp_path: Path
) -> None:
    for name in ("b.png", "a.JPG", "x/a.png", "x/y/c.webp", ".hidden/h.png", ".h.png"):
        image_file(name)
    (tmp_path / "notes.txt").write_text("no image")
    records = find_images([str(tmp_path)])
    assert [record.file_name for record in records] == ["a.JPG", "b.png", "x/a.png", "x/y/c.webp"]
    assert [record.image_id for record in records] == [1, 2, 3, 4]
    assert all(record.path.is_file() for record in records)


def test_several_arguments_are_relative_to_their_common_parent(
    image_file: WriteImage, tmp_path: Path
) -> None:
    first, second = image_file("x/a.png"), image_file("y/z/a.png")
    assert names(tmp_path / "x", tmp_path / "y") == ["x/a.png", "y/z/a.png"]
    assert names(first, second) == ["x/a.png", "y/z/a.png"]
    assert names(first) == ["a.png"]
    assert names(tmp_path / "x", first) == ["a.png"]


def test_same_file_named_twice_is_listed_once(image_file: WriteImage, tmp_path: Path) -> None:
    image_file("x/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    assert names(tmp_path / "x", f"{tmp_path}/./x/../x") == ["a.png"]
    assert names(tmp_path / "x", tmp_path / "link") == ["a.png"]


def test_linked_folders_are_not_followed(image_file: WriteImage, tmp_path: Path) -> None:
    image_file("x/a.png")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["x/a.png"]


def test_folder_with_an_image_suffix_is_a_folder(image_file: WriteImage, tmp_path: Path) -> None:
    image_file("album.jpg/a.png")
    assert names(tmp_path) == ["album.jpg/a.png"]


def test_patterns_and_lists(
    image_file: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_file("x/a.png")
    image_file("x/b.png")
    (tmp_path / "x" / "notes.txt").write_text("")
    (tmp_path / "list.txt").write_text("x/b.png\n\nx/a.png\n")
    assert names(tmp_path / "x" / "*") == ["a.png", "b.png"]
    assert names(tmp_path / "**" / "a.png") == ["a.png"]
    assert names(f"@{tmp_path}/list.txt") == ["a.png", "b.png"]
    monkeypatch.chdir(tmp_path)
    assert names("@list.txt") == ["a.png", "b.png"]
    assert names("x") == ["a.png", "b.png"]
    assert find_images(["x"])[0].path == Path("x/a.png")


def test_file_named_directly_needs_no_suffix(image_file: WriteImage, tmp_path: Path) -> None:
    path = image_file("a.png").rename(tmp_path / "a")
    assert names(path) == ["a"]


def test_names_that_are_not_utf8_survive(image_file: WriteImage, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    os.rename(image_file("a.png"), raw)
    (record,) = find_images([str(tmp_path)])
    assert os.fsencode(json.loads(json.dumps(record.file_name))) == b"caf\xe9.png"
    assert read_image(record.path).rgb.shape == (48, 64, 3)


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("here.png\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no image found in .*empty; looked for"):
        find_images([str(tmp_path / "empty")])
    with pytest.raises(InputError, match=r"missing\.png: no such file or folder"):
        find_images([str(tmp_path / "missing.png")])
    with pytest.raises(InputError, match=r"list\.txt:1: .*here\.png does not exist"):
        find_images([f"@{tmp_path}/list.txt"])
    with pytest.raises(InputError, match="cannot read the list"):
        find_images([f"@{tmp_path}/no.txt"])


# --- read_image


def test_plain_image(image_file: WriteImage) -> None:
    path = image_file()
    decoded = read_image(path)
    assert np.array_equal(decoded.rgb, photo())
    assert (decoded.exif_orientation, decoded.num_frames, decoded.warnings) == (1, 1, ())
    assert decoded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


TURNED = {  # what a viewer shows for each tag, as array operations
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("suffix", ["png", "tif"])  # Pillow turns TIFF by itself
@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_orientation(tmp_path: Path, tag: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(photo()).save(path, exif=exif)
    upright, stored = read_image(path), read_image(path, apply_exif=False)
    assert np.array_equal(upright.rgb, TURNED[tag](photo()))
    assert np.array_equal(stored.rgb, photo())
    assert upright.exif_orientation == stored.exif_orientation == tag


@pytest.mark.parametrize("tag", [0, 9])
def test_senseless_orientation_is_none(tmp_path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=exif)
    decoded = read_image(tmp_path / "a.png")
    assert decoded.exif_orientation == 1 and np.array_equal(decoded.rgb, photo())


def test_16_bit_gray_is_scaled_not_saturated(image_file: WriteImage) -> None:
    """Pillow's own conversion clips at 255, so that nearly all pixels became white."""
    levels = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    decoded = read_image(image_file("deep.png", levels))
    assert np.array_equal(decoded.rgb[:, :, 0], np.rint(levels / 257).astype(np.uint8))
    assert "scaled to 0..255" in decoded.warnings[0]


def test_float_gray_is_scaled_not_zeroed(image_file: WriteImage) -> None:
    """Pillow's own conversion truncated 0..1 to black."""
    levels = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64)
    decoded = read_image(image_file("depth.tif", levels))
    assert decoded.rgb.min() == 0 and decoded.rgb.max() == 255


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 200]], [[0, 200]]),  # 8-bit values in a deep file
        ([[-1.0, 3.0]], [[0, 255]]),
        ([[0.0, 0.5], [np.nan, 1.0]], [[0, 128], [0, 255]]),
        ([[7.0, 7.0]], [[7, 7]]),
        ([[70000.0, 70000.0]], [[0, 0]]),
        ([[np.nan, np.nan]], [[0, 0]]),
        ([[0.0, np.inf], [0.5, 1.0]], [[0, 255], [128, 255]]),
    ],
    ids=["8bit", "signed", "nan", "constant", "constant_large", "all_nan", "infinite"],
)
def test_gray_ranges(values: list[list[float]], expected: list[list[int]]) -> None:
    assert scale_deep_gray(np.array(values))[0].tolist() == expected


def test_12_bit_data_in_16_bits_uses_the_whole_range() -> None:
    assert scale_deep_gray(np.full((2, 2), np.nan))[1].startswith("no gray value is a number")
    levels, note = scale_deep_gray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    assert levels.min() == 0 and levels.max() == 255 and "found 0..4095" in note


def test_transparency_is_laid_on_white(image_file: WriteImage, tmp_path: Path) -> None:
    """A plain conversion to RGB showed whatever color transparent pixels had."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    decoded = read_image(image_file("a.png", pixels))
    assert (decoded.rgb[:4] == 0).all() and (decoded.rgb[4:] == 255).all()
    assert decoded.warnings == ("transparency laid on white",)
    pixels[..., 3] = 255
    assert read_image(image_file("b.png", pixels)).warnings == ()
    palette = Image.fromarray(pixels[..., :3]).quantize(4)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert (read_image(tmp_path / "p.png").rgb == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "I;16", "F"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    source = Image.fromarray(photo()).convert("L" if mode in ("I;16", "F") else mode[:5])
    source.convert(mode).save(tmp_path / "a.tif")
    rgb = read_image(tmp_path / "a.tif").rgb
    assert rgb.shape == (48, 64, 3) and rgb.dtype == np.uint8


def test_animation_uses_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    decoded = read_image(tmp_path / "a.gif")
    assert decoded.num_frames == 3 and decoded.rgb[0, 0].tolist() == [255, 0, 0]
    assert "3 frames" in decoded.warnings[0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "gif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(photo(300, 400)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ImageError, match=f"{path.name}: ") as caught:
        read_image(path)
    assert caught.value.reason in ("truncated", "not_an_image")
    if caught.value.reason == "truncated":  # a TIFF's directory may stand at its end
        decoded = read_image(path, allow_truncated=True)
        assert decoded.rgb.shape == (300, 400, 3) and "damaged" in decoded.warnings[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!doctype html><html></html>", "not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC is not supported"),
        (b"\xff\xd8\xff", "not an image"),
    ],
    ids=["empty", "html", "lfs", "heic", "header"],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert caught.value.reason == "not_an_image"


def test_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "a.jpg")


def test_missing_and_dangling(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert names(tmp_path) == ["a.jpg", "loop.jpg"]
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.jpg")
    assert caught.value.reason == "not_found"
    with pytest.raises(ImageError):
        read_image(tmp_path / "loop.jpg")


def test_limit_of_pixels(image_file: WriteImage, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image_file()
    with pytest.raises(ImageError, match="64 x 48 pixels, the limit is 3071") as caught:
        read_image(path, max_pixels=3071)
    assert caught.value.reason == "too_large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason == "too_large"


def test_failed_reads_leave_no_open_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no image")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(ImageError):
            read_image(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_content_not_suffix_decides(image_file: WriteImage, tmp_path: Path) -> None:
    path = image_file("a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(read_image(path).rgb, photo())


# --- preprocess


@pytest.mark.parametrize("name", SIZES)
def test_resize_is_opencvs(name: str) -> None:
    hw, out_hw = SIZES[name]
    expected = np.load(GOLDEN / "resize_cv2.npz")[name].reshape(*out_hw, 3)
    assert np.array_equal(resize_bilinear(make_image(*hw), out_hw), expected)


@pytest.mark.parametrize("name", ["imgA", "imgB"])
def test_reference_images(name: str) -> None:
    """Resized bytes and normalized samples as recorded from the official code."""
    expected = json.loads((GOLDEN / "parity.json").read_text())["images"][name]
    rgb = read_image(GOLDEN / f"{name}.png").rgb
    resized = resize_bilinear(rgb, tuple(expected["resized_hw"]))
    assert hashlib.sha256(resized.tobytes()).hexdigest() == expected["sha256_resized_rgb_cv2"]
    pixels, geometry = preprocess(rgb, model_size=1024, mean=MEAN, std=STD)
    assert geometry.input_hw == tuple(expected["resized_hw"])
    assert geometry.scale_xy == tuple(expected["scale_factor_wh"])
    index = np.arange(256)
    chosen = pixels.ravel()[(index * pixels.size // 256 + 7919 * index) % pixels.size]
    samples = np.load(GOLDEN / "parity.npz")[f"{name}/preprocessed/samples"]
    assert np.array_equal(chosen, samples)


@pytest.mark.parametrize(
    ("hw", "input_hw"),
    [
        ((48, 64), (24, 32)),
        ((64, 48), (32, 24)),
        ((1, 1), (32, 32)),
        ((1, 5000), (1, 32)),  # 0.0064 rounds to no pixel at all
        ((45, 64), (23, 32)),  # 22.5 rounds up
        ((32, 32), (32, 32)),
    ],
)
def test_input_frame(hw: tuple[int, int], input_hw: tuple[int, int]) -> None:
    pixels, geometry = preprocess(photo(*hw), model_size=32, mean=MEAN, std=STD)
    assert (geometry.original_hw, geometry.input_hw, geometry.model_size) == (hw, input_hw, 32)
    assert pixels.shape == (3, 32, 32) and pixels.dtype == np.float32
    assert (pixels[:, input_hw[0] :] == 0).all() and (pixels[:, :, input_hw[1] :] == 0).all()


def test_normalization_by_channel() -> None:
    rgb = np.full((4, 4, 3), (10, 20, 30), np.uint8)
    pixels, _ = preprocess(rgb, model_size=4, mean=(10, 10, 10), std=(1, 2, 4))
    assert pixels[:, 0, 0].tolist() == [0, 5, 5]
