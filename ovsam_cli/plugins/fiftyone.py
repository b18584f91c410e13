"""A model for FiftyOne's `apply_model`: objects at the prompts of a field, or everywhere.

    from ovsam_cli.plugins.fiftyone import OvsamModel

    model = OvsamModel("rn50x16", "cat, dog")
    dataset.apply_model(model, label_field="ovsam", prompt_field="ground_truth")

The prompts are `Detections`, whose boxes count, or `Keypoints`, each of them one object. Without
`prompt_field` a grid of points is tried.
"""

from __future__ import annotations

import fiftyone.core.labels as fol
import fiftyone.core.models as fom
import fiftyone.core.sample as fos
import numpy as np

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.interactive import make_prompt
from ovsam_cli.labelling.options import LabelOptions
from ovsam_cli.labelling.python_api import label_image, load_model, make_prompts
from ovsam_cli.masks import decode_mask
from ovsam_cli.raster import RgbArray
from ovsam_cli.structures import Detections, Prompts

PROMPT_FIELD = "prompt_field"


class OvsamModel(fom.SamplesMixin, fom.Model):  # type: ignore[misc]  # untyped base classes
    """Masks and names of the objects of an image.

    Args:
        model: bundled or published name, file, or folder.
        vocabulary: bundled name, file, or names with commas.
        devices: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.
        options: what is kept of the objects found, and the grid where there are no prompts.
    """

    def __init__(
        self,
        model: str = "rn50x16",
        vocabulary: str = "coco",
        *,
        devices: str = "auto",
        options: LabelOptions | None = None,
    ) -> None:
        fom.SamplesMixin.__init__(self)
        self._labeller = load_model(model, vocabulary, devices=devices, options=options)

    @property
    def media_type(self) -> str:
        """Images."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Images of one call may differ in size."""
        return False

    @property
    def transforms(self) -> None:
        """None: images come as they are."""
        return None

    @property
    def preprocess(self) -> bool:
        """There is nothing to do beforehand."""
        return False

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        """Asked for by FiftyOne; changes nothing."""

    def predict(self, arg: RgbArray, sample: fos.Sample | None = None) -> fol.Detections:
        """Label one image.

        Args:
            arg: (H, W, 3) uint8 RGB.
            sample: holds the prompts.

        Raises:
            InputError: the prompts are of another kind.
        """
        field = self.needs_fields.get(PROMPT_FIELD)
        prompts = None
        if field is not None and sample is not None:
            height, width = arg.shape[:2]
            prompts = _read_prompts(sample[field], field, (height, width))
        found = label_image(self._labeller, np.asarray(arg), prompts)
        names = self._labeller.names
        return fol.Detections(
            detections=[_make_label(found, row, names) for row in range(len(found))]
        )


def _read_prompts(label: fol.Label | None, field: str, original_hw: tuple[int, int]) -> Prompts:
    """Boxes or points, which FiftyOne keeps relative to the image's size, in pixels."""
    height, width = original_hw
    if label is None:
        return make_prompts()
    if isinstance(label, fol.Detections):
        boxes = [one.bounding_box for one in label.detections]
        return make_prompts(
            boxes_xyxy=[
                (x * width, y * height, (x + w) * width, (y + h) * height) for x, y, w, h in boxes
            ]
        )
    if isinstance(label, fol.Keypoints):
        found = []
        for number, one in enumerate(label.keypoints, start=1):
            points = [(x * width, y * height) for x, y in one.points]
            found.append(make_prompt(points=points, labels=[1] * len(points), prompt_id=number))
        return Prompts.concatenate(found)
    raise InputError(
        f"prompt_field {field!r}: holds {type(label).__name__}, expected Detections or Keypoints"
    )


def _make_label(found: Detections, row: int, names: dict[int, str]) -> fol.Detection:
    """One object; its mask is cut to the box, as FiftyOne has it."""
    mask = decode_mask(found.segmentations[row])
    height, width = mask.shape
    left, top, right, bottom = (int(edge) for edge in found.boxes_xyxy[row])
    return fol.Detection(
        label=names[int(found.category_ids[row])],
        bounding_box=[left / width, top / height, (right - left) / width, (bottom - top) / height],
        mask=np.ascontiguousarray(mask[top:bottom, left:right]),
        confidence=float(found.scores[row]),
        stability_score=float(found.stability_scores[row]),
        prompt_id=str(found.prompt_ids[row]),
    )
