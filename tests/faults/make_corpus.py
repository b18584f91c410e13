"""Write a folder of hostile image files: `python tests/faults/make_corpus.py FOLDER`.

What each is for stands in its name. `make_corpus` says which must fail, with the reason that
`errors.jsonl` must give, and which must be labelled all the same.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

LABELLED = ""  # instead of a reason
LONG_NAME = "n" * 251 + ".png"  # 255 bytes, the most that file systems take
NOT_UTF8 = os.fsdecode(b"caf\xe9-\xff.png")
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 255, (48, 64, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """An image file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def photo(format: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    """A small photo in this format and mode."""
    return encoded(Image.fromarray(PIXELS).convert(mode), format, **options)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with the right checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, rows: bytes, *, depth: int = 8, color: int = 0) -> bytes:
    """A PNG of any header and content, sensible or not."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def patched(content: bytes, position: int, new: bytes) -> bytes:
    """The content with some bytes replaced."""
    return content[:position] + new + content[position + len(new) :]


def make_frames(format: str, count: int, **options: object) -> bytes:
    """An animation, or a file of several pages."""
    frames = [Image.fromarray(np.roll(PIXELS, shift, axis=0)) for shift in range(count)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)


def with_exif(orientation: int) -> bytes:
    """A photo with an EXIF orientation, sensible or not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return photo(exif=exif)


def _good_oddities() -> dict[str, bytes]:
    """Odd, but images: each must be labelled."""
    deep = np.linspace(0, 60000, 48 * 64).reshape(48, 64)
    transparent = Image.fromarray(PIXELS).convert("RGBA")
    transparent.putalpha(128)
    palette = Image.fromarray(PIXELS).quantize(16)
    jpeg = photo(quality=90)
    middle = len(jpeg) // 2
    return {
        "gray-16-bit.png": encoded(Image.fromarray(deep.astype(np.uint16)), "PNG"),
        "gray-16-bit.tif": encoded(Image.fromarray(deep.astype(np.uint16)), "TIFF"),
        "gray-32-bit.tif": encoded(Image.fromarray(deep.astype(np.int32)), "TIFF"),
        "gray-float.tif": encoded(Image.fromarray(deep.astype(np.float32) / 6e4), "TIFF"),
        "gray-float-nan.tif": encoded(
            Image.fromarray(np.where(deep > 3e4, np.nan, deep).astype(np.float32)), "TIFF"
        ),
        "gray-float-all-nan.tif": encoded(
            Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"
        ),
        "gray.jpg": photo(mode="L"),
        "gray-alpha.png": photo("PNG", "LA"),
        "one-bit.png": photo("PNG", "1"),
        "cmyk.jpg": photo(mode="CMYK"),
        "cmyk.tif": photo("TIFF", "CMYK"),
        "ycbcr.tif": photo("TIFF", "YCbCr", compression="jpeg"),
        "lab.tif": photo("TIFF", "LAB"),
        "transparent.png": encoded(transparent, "PNG"),
        "transparent.webp": encoded(transparent, "WEBP"),
        "transparent.avif": encoded(transparent, "AVIF"),
        "palette.png": encoded(palette, "PNG"),
        "palette-transparent.png": encoded(palette, "PNG", transparency=3),
        "palette-transparent.gif": encoded(palette, "GIF", transparency=3),
        "palette-bytes.png": encoded(palette, "PNG", transparency=bytes(range(16))),
        "animation.gif": make_frames("GIF", 5),
        "animation.webp": make_frames("WEBP", 5),
        "animation.png": make_frames("PNG", 5),
        "pages.tif": make_frames("TIFF", 5),
        "pictures.mpo": make_frames("MPO", 3),
        "pictures-mpo.jpg": make_frames("MPO", 3),
        "jpeg2000.jp2": photo("JPEG2000"),
        "plain.webp": photo("WEBP"),
        "plain.avif": photo("AVIF"),
        "plain.bmp": photo("BMP"),
        "plain.ppm": photo("PPM"),
        "plain.tga": photo("TGA"),
        "progressive.jpg": photo(progressive=True),
        "one-pixel.png": encoded(Image.new("RGB", (1, 1)), "PNG"),
        "one-pixel.jpg": encoded(Image.new("RGB", (1, 1)), "JPEG"),
        "1x5000.png": encoded(Image.new("RGB", (1, 5000)), "PNG"),
        "5000x1.jpg": encoded(Image.new("RGB", (5000, 1)), "JPEG"),
        "exif-turned.jpg": with_exif(6),
        "exif-0.jpg": with_exif(0),
        "exif-99.jpg": with_exif(99),
        "exif-garbage.jpg": photo(exif=b"Exif\0\0garbage that is no TIFF header"),
        "exif-loop.jpg": photo(
            exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0"
        ),
        "icc-garbage.jpg": photo(icc_profile=b"no profile"),
        "jpeg-as-png.png": jpeg,
        "png-as-jpeg.jpg": photo("PNG"),
        "no-suffix-for-that.jfif": photo("BMP"),
        "garbage-in-the-middle.jpg": patched(jpeg, middle, b"\x55" * 40),
        "garbage-behind.jpg": jpeg + b"<script>alert(1)</script>" * 50,
        "garbage-behind.png": photo("PNG") + bytes(5000),
        "with-zip-behind.jpg": jpeg + b"PK\x03\x04" + bytes(200),
        "upper-case.JPG": jpeg,
        "same-stem.jpg": jpeg,
        "same-stem.png": photo("PNG"),
        "same/stem.jpg": jpeg,
        "same stem, with: 'odd' \"marks\" & <tags> #1 %20.jpg": jpeg,
        "new\nline.jpg": jpeg,
        "名前-имя-😀.jpg": jpeg,
        LONG_NAME: photo("PNG"),
        NOT_UTF8: photo("PNG"),
        "-leading-dash.jpg": jpeg,
    }


def _bad_files() -> dict[str, tuple[bytes, str]]:
    """Contents that cannot be labelled, and why."""
    jpeg, plain = photo(quality=90), photo("PNG")
    twelve_bits = patched(jpeg, jpeg.index(b"\xff\xc0") + 4, b"\x0c")
    no_size = patched(jpeg, jpeg.index(b"\xff\xc0") + 5, b"\0\0\0\0")
    flipped = patched(plain, len(plain) // 2, bytes([plain[len(plain) // 2] ^ 0xFF]))
    html = b"<!DOCTYPE html><html><body>404 not found</body></html>"
    return {
        "empty.jpg": (b"", "not_an_image"),
        "empty.png": (b"", "not_an_image"),
        "one-byte.jpg": (b"\xff", "not_an_image"),
        "zeros.jpg": (bytes(4096), "not_an_image"),
        "noise.png": (RNG.bytes(4096), "not_an_image"),
        "text.jpg": (b"this is not an image\n" * 20, "not_an_image"),
        "page.jpg": (html, "not_an_image"),
        "vector.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image"),
        "pointer.jpg": (LFS_POINTER, "not_an_image"),
        "document.jpg": (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "not_an_image"),
        "archive.jpg": (b"PK\x03\x04" + bytes(100), "not_an_image"),
        "photo.heic.jpg": (b"\0\0\0\x18ftypheic" + bytes(100), "not_an_image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "header-only.jpg": (jpeg[:100], ANY),
        "truncated.png": (plain[: len(plain) // 2], "truncated"),
        "truncated.webp": ((webp := photo("WEBP"))[: len(webp) // 2], ANY),
        "truncated.avif": ((avif := photo("AVIF"))[: len(avif) // 2], ANY),
        "truncated.gif": ((gif := photo("GIF", "P"))[: len(gif) // 2], ANY),
        "truncated.tif": ((tif := photo("TIFF"))[: len(tif) // 2], ANY),
        "truncated.jp2": ((jp2 := photo("JPEG2000"))[: len(jp2) // 2], ANY),
        "truncated.bmp": ((bmp := photo("BMP"))[: len(bmp) // 2], ANY),
        "flipped-byte.png": (flipped, ANY),
        "12-bit.jpg": (twelve_bits, ANY),
        "no-size.jpg": (no_size, ANY),
        "no-width.png": (png(0, 10, b""), ANY),
        "no-pixels.png": (png(10, 10, b""), ANY),
        "bomb.png": (png(60000, 60000, bytes(1000)), "too_large"),
        "bomb-of-one-bit.png": (png(20000, 20000, bytes(1000), depth=1), "too_large"),
        "bomb.gif": (b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3), ANY),
        "depth-99.png": (png(10, 10, bytes(110), depth=99), ANY),
    }


ANY = "any"  # one of the reasons; which depends on the decoder


def _make_entries(folder: Path, target: Path) -> dict[str, str]:
    """What is no regular file, or cannot be opened."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.png").write_bytes(photo("PNG"))
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "loop-a.jpg").symlink_to("loop-b.jpg")
    (folder / "loop-b.jpg").symlink_to("loop-a.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "terminal.jpg").symlink_to("/dev/tty")
    (folder / "linked.jpg").symlink_to(target)
    (folder / "around").symlink_to(folder)
    (folder / "secret.jpg").write_bytes(photo())
    (folder / "secret.jpg").chmod(0)
    return {
        **dict.fromkeys(("pipe.jpg", "device.jpg", "terminal.jpg"), "not_a_file"),
        "folder.jpg/inside.png": LABELLED,
        **dict.fromkeys(("loop.jpg", "loop-a.jpg", "loop-b.jpg"), "decode_error"),
        "dangling.jpg": "not_found",
        "linked.jpg": LABELLED,
        "secret.jpg": "permission",
    }


def make_corpus(folder: Path) -> dict[str, str]:
    """Fill a folder.

    Returns:
        By file name below the folder: why it must fail, `LABELLED` where it must not, `ANY` where
        the reason depends on the decoder.
    """
    expected: dict[str, str] = {}
    for name, content in _good_oddities().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expected[name] = LABELLED
    for name, (content, reason) in _bad_files().items():
        (folder / name).write_bytes(content)
        expected[name] = reason
    return expected | _make_entries(folder, folder / "plain.bmp")


if __name__ == "__main__":
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True)
    made = make_corpus(corpus)
    print(f"{len(made)} files, {sum(reason != LABELLED for reason in made.values())} to fail")
