"""Automatic annotation in CVAT: a function for `cvat-cli task auto-annotate`.

    pip install cvat-cli
    cvat-cli task auto-annotate 137 --function-module ovsam_cli.plugins.cvat \\
        -p model=str:rn50x16 -p vocabulary=str:"cat, dog" --allow-unmatched-labels

`--function-file` with the path of this file does the same, so every import here is an absolute one.
CVAT asks for every object of an image, so a grid of points is tried. The labels of the task are
matched by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.masks
import numpy as np
from cvat_sdk import models
from PIL import Image

from ovsam_cli.labelling.options import GridOptions, LabelOptions
from ovsam_cli.labelling.python_api import label_image, load_model
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.masks import decode_mask, mask_to_polygons
from ovsam_cli.structures import Detections


class OvsamFunction:
    """What CVAT calls for each frame; made by `create`."""

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The names that objects can get."""
        labels = [cvataa.label_spec(name, id) for id, name in self._labeller.names.items()]
        return cvataa.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """Masks of a frame, or polygons where CVAT wants those; parts of one object are grouped."""
        found = label_image(self._labeller, np.asarray(image.convert("RGB")))
        wanted = context.conf_threshold or 0.0
        rows = [row for row in range(len(found)) if found.scores[row] >= wanted]
        if not context.conv_mask_to_poly:
            return [_make_mask(found, row) for row in rows]
        return [shape for row in rows for shape in _make_polygons(found, row)]


def create(
    model: str = "rn50x16",
    vocabulary: str = "coco",
    devices: str = "auto",
    points_per_side: int = 32,
    min_score: float = 0.0,
) -> OvsamFunction:
    """Load the model; CVAT's command line calls this with what follows its `-p`.

    Args:
        model: bundled or published name, file, or folder.
        vocabulary: bundled name, file, or names with commas.
        devices: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.
        points_per_side: of the grid.
        min_score: lowest score of a name.

    Raises:
        InputError, CheckpointError, VocabularyError: as of `load_model`.
    """
    options = LabelOptions(grid=GridOptions(points_per_side), min_score=min_score, compile="never")
    return OvsamFunction(load_model(model, vocabulary, devices=devices, options=options))


def _make_mask(found: Detections, row: int) -> models.LabeledShapeRequest:
    mask = decode_mask(found.segmentations[row])
    return cvataa.mask(int(found.category_ids[row]), cvat_sdk.masks.encode_mask(mask))


def _make_polygons(found: Detections, row: int) -> Sequence[models.LabeledShapeRequest]:
    polygons = mask_to_polygons(found.segmentations[row]).polygons
    group = {"group": row + 1} if len(polygons) > 1 else {}
    label = int(found.category_ids[row])
    return [cvataa.polygon(label, list(polygon), **group) for polygon in polygons]
