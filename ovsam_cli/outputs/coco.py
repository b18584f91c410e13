"""The COCO file of a run, written one image at a time.

What other programs need decides its form: masks are RLE with `iscrowd` 0 (lossless, and `iscrowd` 1
would be ignored or dropped by evaluation and training), ids start at 1 (0 means "unmatched" to
COCO's evaluation), and all that COCO does not define stands under `attributes`, which importers
keep or ignore. Nothing of the time or the machine gets in, so equal runs give equal bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Literal

from ovsam_cli import masks
from ovsam_cli.outputs.files import output_error, write_whole_file
from ovsam_cli.outputs.json_values import JsonValue, prompt_to_json, shortest_floats
from ovsam_cli.structures import Detections, ImageResult, Rle

MaskFormat = Literal["rle", "polygon", "rle-uncompressed", "none"]
MIN_POLYGON_COORDINATES = 6  # three points


@dataclass(frozen=True, slots=True)
class CocoCategory:
    """A category of the file.

    Attributes:
        id: at least 1.
        name: as written in the vocabulary.
        supercategory: COCO's group of the category; some readers need the key.
        frequency: LVIS's `r`, `c` or `f`; left out when empty.
    """

    id: int
    name: str
    supercategory: str = "object"
    frequency: str = ""


@dataclass(frozen=True, slots=True)
class CocoOptions:
    """What the file says besides the objects.

    Attributes:
        masks: how masks are written; `polygon` loses holes, `none` leaves `segmentation` out.
        with_prompt: each object's prompt, in the form of a prompt file.
        with_topk: the best names of each object and their probabilities.
        version: of the program.
        description: free text.
        weights_notice: name and licence of the weights.
        date_created: only written if given, since it makes equal runs differ.
    """

    masks: MaskFormat = "rle"
    with_prompt: bool = False
    with_topk: bool = False
    version: str = ""
    description: str = ""
    weights_notice: str = ""
    date_created: str = ""


@dataclass(frozen=True, slots=True)
class CocoSummary:
    """What was written.

    Attributes:
        num_images: images in the file, those without objects included.
        num_annotations: objects in the file.
        num_failed: images left out because they failed: nothing is known of their objects.
        num_masks_with_lost_holes, num_lost_holes: what polygons could not express.
        num_rle_fallbacks: masks written as RLE in a polygon file.
    """

    num_images: int = 0
    num_annotations: int = 0
    num_failed: int = 0
    num_masks_with_lost_holes: int = 0
    num_lost_holes: int = 0
    num_rle_fallbacks: int = 0


class CocoWriter:
    """Writes results to a COCO file; a context manager. Memory does not grow with the run.

    The file appears under its name, whole, when the block ends well; until then, and if the block
    raises, an older file of that name stays as it is.

        with CocoWriter(out / "annotations.json", categories=categories, options=options) as coco:
            for result in journal.iter_results(records):
                coco.write(result)
        print(coco.summary.num_annotations)
    """

    def __init__(
        self, path: Path, *, categories: Sequence[CocoCategory], options: CocoOptions
    ) -> None:
        self._path = path
        self._categories = tuple(categories)
        self._category_ids = frozenset(category.id for category in categories)
        self._options = options
        self._stack = ExitStack()
        self._last_image_id = 0
        self._num_images = self._num_annotations = self._num_failed = 0
        self._num_masks_with_lost_holes = self._num_lost_holes = self._num_rle_fallbacks = 0

    def __enter__(self) -> CocoWriter:
        """Open the temporary files.

        Raises:
            OutputError: the folder cannot be written.
        """
        with ExitStack() as stack:
            self._file: BinaryIO = stack.enter_context(write_whole_file(self._path))
            # Objects wait in a nameless file until all images are written: images come first.
            self._objects: IO[bytes] = stack.enter_context(
                tempfile.TemporaryFile(dir=self._path.parent)
            )
            head: dict[str, JsonValue] = {
                "info": self._info(),
                "licenses": [],
                "categories": self._category_rows(),
            }
            self._file.write(_dump(head)[:-1] + b',\n"images":[')
            self._stack = stack.pop_all()
        return self

    def write(self, result: ImageResult) -> None:
        """Add an image and its objects; a failed image is only counted.

        Args:
            result: with a higher image_id than any before it.

        Raises:
            OutputError: the disk is full or gone.
            ValueError: the result contradicts the file (ids, sizes) or holds NaN: our own fault.
        """
        if result.detections is None:
            self._num_failed += 1
            return
        self._check(result, result.detections)
        record, (height, width) = result.record, result.original_hw
        image: dict[str, JsonValue] = {
            "id": record.image_id,
            "file_name": record.file_name,
            "width": width,
            "height": height,
            "exif_orientation": result.exif_orientation,
        }
        try:
            self._file.write((b",\n" if self._num_images else b"\n") + _dump(image))
            for row in self._iter_annotation_rows(record.image_id, result.detections):
                self._objects.write((b",\n" if self._num_annotations else b"\n") + _dump(row))
                self._num_annotations += 1
        except OSError as error:
            raise output_error(self._path, error) from error
        self._last_image_id = record.image_id
        self._num_images += 1

    @property
    def summary(self) -> CocoSummary:
        """What was written so far."""
        return CocoSummary(
            num_images=self._num_images,
            num_annotations=self._num_annotations,
            num_failed=self._num_failed,
            num_masks_with_lost_holes=self._num_masks_with_lost_holes,
            num_lost_holes=self._num_lost_holes,
            num_rle_fallbacks=self._num_rle_fallbacks,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Join the two parts and put the file in place; after an exception, only clean up.

        Raises:
            OutputError: the disk is full or gone.
        """
        with self._stack:  # closes both files, and renames unless the block below raises
            if error is not None:
                raise error
            self._file.write(b'\n],\n"annotations":[')
            self._objects.seek(0)
            shutil.copyfileobj(self._objects, self._file)
            self._file.write(b"\n]}\n")

    def _info(self) -> dict[str, JsonValue]:
        options = self._options
        info: dict[str, JsonValue] = {
            "description": options.description,
            "version": options.version,
            "weights_notice": options.weights_notice,
        }
        if options.date_created:
            info["date_created"] = options.date_created
        return info

    def _category_rows(self) -> list[dict[str, JsonValue]]:
        rows: list[dict[str, JsonValue]] = []
        for category in self._categories:
            row: dict[str, JsonValue] = {
                "id": category.id,
                "name": category.name,
                "supercategory": category.supercategory,
            }
            rows.append(row | ({"frequency": category.frequency} if category.frequency else {}))
        return rows

    def _check(self, result: ImageResult, found: Detections) -> None:
        name, image_id = result.record.file_name, result.record.image_id
        if image_id <= self._last_image_id:
            raise ValueError(
                f"{name}: image_id {image_id} follows {self._last_image_id}; ids must rise from 1"
            )
        unknown = set(found.category_ids.tolist()) - self._category_ids
        if unknown:
            raise ValueError(f"{name}: category ids {sorted(unknown)} are not in the file")
        for rle in found.segmentations:
            if tuple(rle["size"]) != result.original_hw:
                raise ValueError(
                    f"{name}: a mask of {rle['size']} for an image of {list(result.original_hw)}"
                )
        if (found.areas <= 0).any():
            raise ValueError(f"{name}: an empty mask; they must be left out before writing")

    def _iter_annotation_rows(
        self, image_id: int, found: Detections
    ) -> Iterator[dict[str, JsonValue]]:
        scores, margins = shortest_floats(found.scores), shortest_floats(found.margins)
        stability_scores = shortest_floats(found.stability_scores)
        ious = None if found.iou_predictions is None else shortest_floats(found.iou_predictions)
        for row, rle in enumerate(found.segmentations):
            attributes: dict[str, JsonValue] = {
                "prompt_id": found.prompt_ids[row],
                "stability_score": stability_scores[row],
                "margin": margins[row],
            }
            if ious is not None:
                attributes["predicted_iou"] = ious[row]
            if self._options.with_prompt:
                attributes["prompt"] = prompt_to_json(found.prompts, row)
            if self._options.with_topk:
                attributes["topk"] = [list(pair) for pair in found.topk[row]]
            yield {
                "id": self._num_annotations + 1,
                "image_id": image_id,
                "category_id": int(found.category_ids[row]),
                "bbox": shortest_floats(masks.xyxy_to_xywh(found.boxes_xyxy[row])),
                "area": float(found.areas[row]),
                "iscrowd": 0,
                **self._segmentation(rle),
                "score": scores[row],
                "attributes": attributes,
            }

    def _segmentation(self, rle: Rle) -> dict[str, JsonValue]:
        """The `segmentation` entry of a mask, or nothing."""
        if self._options.masks == "none":
            return {}
        if self._options.masks == "rle-uncompressed":
            counts = masks.list_run_lengths(rle)
            return {"segmentation": {"size": list(rle["size"]), "counts": counts}}
        if self._options.masks == "polygon":
            outlines = masks.mask_to_polygons(rle)
            polygons = [list(p) for p in outlines.polygons if len(p) >= MIN_POLYGON_COORDINATES]
            if polygons:
                self._num_lost_holes += outlines.num_holes
                self._num_masks_with_lost_holes += outlines.num_holes > 0
                return {"segmentation": polygons}
            self._num_rle_fallbacks += 1
        return {"segmentation": {"size": list(rle["size"]), "counts": rle["counts"]}}


def _dump(value: Mapping[str, JsonValue]) -> bytes:
    # ASCII: names that are not UTF-8 stand as \udcXX and give the same file name when read.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
