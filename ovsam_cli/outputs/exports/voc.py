"""A Pascal VOC data set (`voc`): boxes in XML, masks in PNG pictures of palette colors.

The layout is that of VOC 2012. Boxes count pixels from 1 and include the last one. In
`SegmentationObject` pixel value n is the n-th object of the XML, in `SegmentationClass` the n-th
name of `labelmap.txt`. One pixel holds one value, so small objects cover large ones, and what they
cover is counted as lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovsam_cli import masks
from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.exporting import (
    ExportCounter,
    ExportedObject,
    ExportSummary,
    NameGuard,
)
from ovsam_cli.outputs.files import write_whole_folder
from ovsam_cli.outputs.image_files import ImageSource, check_file_name, write_small_file
from ovsam_cli.structures import ImageResult

MAX_VALUE = 254  # 255 stands for "void" in VOC
Values = NDArray[np.uint8]


class VocWriter:
    """Writes an XML file and two pictures for each image; made by `open_voc`."""

    def __init__(
        self, folder: Path, categories: Sequence[CocoCategory], images: ImageSource
    ) -> None:
        self._folder = folder
        self._categories = tuple(categories)
        self._images = images
        self._counter = ExportCounter(categories)
        self._guard = NameGuard("voc")
        self._stems: list[str] = []

    @property
    def summary(self) -> ExportSummary:
        """What was written so far."""
        return self._counter.summary

    def write(self, result: ImageResult) -> None:
        """Add an image and its objects; see `ExportWriter.write`."""
        objects = self._counter.take(result)
        if objects is None:
            return
        name = check_file_name(result.record)
        stem = str(name.with_suffix(""))
        self._guard.claim(stem, result.record.file_name)
        write_small_file(self._folder / f"Annotations/{stem}.xml", self._xml(result, objects))
        self._draw(stem, result, objects)
        self._counter.lose("score(s)", len(objects))
        self._images.place(result.record, self._folder / "JPEGImages" / name)
        self._stems.append(stem)

    def finish(self) -> None:
        """Write the list of images and that of names.

        Raises:
            OutputError: the disk is full or gone.
        """
        stems = "".join(f"{stem}\n" for stem in self._stems).encode("utf-8", "surrogateescape")
        for kind in ("Main", "Segmentation"):
            write_small_file(self._folder / f"ImageSets/{kind}/train.txt", stems)
        palette = make_palette().reshape(-1, 3)
        rows = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
        for index, category in enumerate(self._categories[:MAX_VALUE], start=1):
            red, green, blue = palette[index].tolist()
            rows.append(f"{plain_name(category.name)}:{red},{green},{blue}::")
        write_small_file(self._folder / "labelmap.txt", ("\n".join(rows) + "\n").encode())

    def _xml(self, result: ImageResult, objects: Sequence[ExportedObject]) -> bytes:
        height, width = result.original_hw
        root = ElementTree.Element("annotation")
        text = self._counter.xml_text
        _add(root, "folder", "JPEGImages")
        _add(root, "filename", text(result.record.file_name))
        size = ElementTree.SubElement(root, "size")
        for tag, value in (("width", width), ("height", height), ("depth", 3)):
            _add(size, tag, str(value))
        _add(root, "segmented", str(int(bool(objects))))
        for one in objects:
            entry = ElementTree.SubElement(root, "object")
            _add(entry, "name", text(plain_name(one.name)))
            what = "name(s) with ':', which labelmap.txt cannot hold"
            self._counter.lose(what, int(plain_name(one.name) != one.name))
            for tag, word in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
                _add(entry, tag, word)
            box = ElementTree.SubElement(entry, "bndbox")
            x, y, box_width, box_height = one.bbox
            edges = (x + 1, y + 1, x + box_width, y + box_height)
            for tag, edge in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True):
                _add(box, tag, f"{edge:g}")
        ElementTree.indent(root)
        found: bytes = ElementTree.tostring(root, encoding="utf-8")
        return found + b"\n"

    def _draw(self, stem: str, result: ImageResult, objects: Sequence[ExportedObject]) -> None:
        if len(self._categories) > MAX_VALUE or len(objects) > MAX_VALUE:
            what = f"mask(s) not drawn: more than {MAX_VALUE} names or objects in an image"
            self._counter.lose(what, len(objects))
            return
        instances = np.zeros(result.original_hw, np.uint8)
        classes = np.zeros(result.original_hw, np.uint8)
        covered = 0
        for row in np.argsort([-one.area for one in objects], kind="stable").tolist():
            inside = masks.decode_mask(objects[row].segmentation)
            covered += int(instances[inside].astype(bool).sum())
            instances[inside] = row + 1
            classes[inside] = objects[row].class_index + 1
        self._counter.lose("mask pixel(s) covered by a smaller object", covered)
        for kind, values in (("Object", instances), ("Class", classes)):
            write_small_file(self._folder / f"Segmentation{kind}/{stem}.png", _to_png(values))


@contextmanager
def open_voc(
    out: Path,
    categories: Sequence[CocoCategory],
    images: ImageSource,
    *,
    overwrite: bool = False,
) -> Iterator[VocWriter]:
    """Write a VOC data set to the folder `out`, which appears whole when the block ends well.

    Raises:
        InputError: `out` holds something else.
        OutputError: it cannot be written.
    """
    with write_whole_folder(out, overwrite=overwrite) as folder:
        writer = VocWriter(folder, categories, images)
        yield writer
        writer.finish()


def plain_name(name: str) -> str:
    """A name as a line of `labelmap.txt` can hold it."""
    return re.sub(r"[:\r\n]|^#", "_", name)


def make_palette() -> Values:
    """(768,) red, green, blue of VOC's 256 colors: bits of the number spread over the channels."""
    number, palette = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((number >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette.ravel()


def _to_png(values: Values) -> bytes:
    picture = Image.fromarray(values)
    picture.putpalette(make_palette().tolist())
    file = BytesIO()
    picture.save(file, "PNG", optimize=False)
    return file.getvalue()


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
