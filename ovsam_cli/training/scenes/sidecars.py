"""One JSON beside each training scene, and the COCO file made of all of them.

A generator writes `OUT/images/000012.jpg` first and `OUT/scenes/000012.json` last and atomically,
so that the sidecar says "this scene is done": generators can be killed at any time, run in any
number of processes, and continue. `assemble_annotations` joins the sidecars to
`OUT/instances.json`.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from ovsam_cli.errors import InputError, OutputError
from ovsam_cli.masks import encode_mask, mask_boxes, xyxy_to_xywh
from ovsam_cli.structures import BoolArray, Rle

MIN_OBJECT_AREA = 1  # pixels; generators apply their own, higher limits
UNNAMED = "object"  # category of the objects that teach masks only


class SidecarObject(TypedDict):
    """One object of a sidecar; `bbox` is [x, y, w, h] in pixels, `area` counts mask pixels."""

    name: str
    source: str
    segmentation: Rle
    bbox: list[float]
    area: int


class Sidecar(TypedDict):
    """What `OUT/scenes/NNNNNN.json` holds."""

    file_name: str
    width: int
    height: int
    objects: list[SidecarObject]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object of a scene as a generator knows it.

    Attributes:
        name: category name, lower case; empty for an object that can teach masks only.
        source: where its shape comes from, such as `noto/red-apple`.
        mask: (H, W) bool, the visible pixels, original frame.
    """

    name: str
    source: str
    mask: BoolArray

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_:
            raise ValueError(f"mask must be (H, W) bool, not {self.mask.shape} {self.mask.dtype}")


def scene_file_name(index: int) -> str:
    """File name of scene `index`, such as `000012.jpg`."""
    return f"{index:06d}.jpg"


@dataclass(frozen=True, slots=True)
class SceneRange:
    """Which scenes a process makes: `start, start + stride, ...` below `count`.

    Attributes:
        count: scenes of all processes together.
        start: first scene of this process.
        stride: number of processes.

    Raises:
        InputError: start or stride make no sense.
    """

    count: int
    start: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.stride < 1:
            raise InputError(
                f"start {self.start}, stride {self.stride}: wanted start >= 0 and stride >= 1"
            )

    def find_missing(self, out: Path) -> list[int]:
        """Those of the scenes that the folder `out` does not hold."""
        wanted = range(self.start, self.count, self.stride)
        return [index for index in wanted if not is_scene_done(out, index)]


def is_scene_done(out: Path, index: int) -> bool:
    """Whether the sidecar of scene `index` stands in `out`."""
    return _sidecar_path(out, scene_file_name(index)).is_file()


def write_sidecar(
    out: Path, file_name: str, original_hw: tuple[int, int], objects: Sequence[SceneObject]
) -> Sidecar:
    """Write the sidecar of one scene atomically; the image must be on disk already.

    Args:
        out: output folder of the generator.
        file_name: name of the image inside `out/images`.
        original_hw: (height, width) of the image in pixels; every mask has this shape.
        objects: the objects; those without a visible pixel are left out.

    Raises:
        OutputError: the folder cannot be written.
    """
    height, width = original_hw
    sidecar = Sidecar(
        file_name=file_name,
        width=width,
        height=height,
        objects=[encode_object(found) for found in objects if found.mask.sum() >= MIN_OBJECT_AREA],
    )
    path = _sidecar_path(out, file_name)
    _write_atomically(path, json.dumps(sidecar, separators=(",", ":")))
    return sidecar


def encode_object(scene_object: SceneObject) -> SidecarObject:
    """Turn the mask of one object into COCO RLE, box and area."""
    segmentation = encode_mask(scene_object.mask)
    bbox = xyxy_to_xywh(mask_boxes([segmentation])[0])
    return SidecarObject(
        name=scene_object.name,
        source=scene_object.source,
        segmentation=segmentation,
        bbox=[float(value) for value in bbox],
        area=int(scene_object.mask.sum()),
    )


def iter_sidecars(out: Path) -> Iterator[Sidecar]:
    """Yield the sidecars of `out` in the order of their file names.

    Raises:
        InputError: a sidecar is not valid JSON, or has no `objects`.
    """
    for path in sorted((out / "scenes").glob("*.json")):
        try:
            sidecar: Sidecar = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{path}: not a scene sidecar ({error}); delete it and make the scene again"
            ) from error
        if not isinstance(sidecar, dict) or "objects" not in sidecar:
            raise InputError(
                f"{path}: no 'objects' in this sidecar; delete it and make the scene again"
            )
        yield sidecar


def assemble_annotations(out: Path) -> Path:
    """Join all sidecars of `out` to a COCO instances file.

    Categories are numbered 1..N by sorted name. An object without a name gets the category
    `object`, so that the file stays valid COCO; its `attributes.named` is false.

    Returns:
        Path of the written `out/instances.json`.

    Raises:
        InputError: `out` holds no sidecar, or a broken one.
        OutputError: the file cannot be written.
    """
    sidecars = list(iter_sidecars(out))
    if not sidecars:
        raise InputError(
            f"{out / 'scenes'}: no scene sidecars; make scenes first with `ovsam train scenes`"
        )
    names = sorted(
        {found["name"] or UNNAMED for sidecar in sidecars for found in sidecar["objects"]}
    )
    category_ids = {name: number for number, name in enumerate(names, start=1)}
    images: list[dict[str, str | int]] = []
    annotations: list[dict[str, object]] = []
    for image_id, sidecar in enumerate(sidecars, start=1):
        images.append(
            {
                "id": image_id,
                "file_name": sidecar["file_name"],
                "width": sidecar["width"],
                "height": sidecar["height"],
            }
        )
        for found in sidecar["objects"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_ids[found["name"] or UNNAMED],
                    "segmentation": found["segmentation"],
                    "bbox": found["bbox"],
                    "area": found["area"],
                    "iscrowd": 0,
                    "attributes": {"source": found["source"], "named": bool(found["name"])},
                }
            )
    categories = [{"id": category_ids[name], "name": name} for name in names]
    document = {"images": images, "annotations": annotations, "categories": categories}
    path = out / "instances.json"
    _write_atomically(path, json.dumps(document, separators=(",", ":")))
    return path


def _sidecar_path(out: Path, file_name: str) -> Path:
    return out / "scenes" / f"{Path(file_name).stem}.json"


def _write_atomically(path: Path, text: str) -> None:
    # The process id keeps two writers of the same scene from sharing a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another --out"
        ) from error
