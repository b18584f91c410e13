"""Our plug-ins inside the programs they are for, as far as those run without a server."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from interop_records import Record
from labeller_builders import build_small_labeller
from PIL import Image

from ovsam_cli.labelling import python_api
from ovsam_cli.labelling.options import GridOptions, LabelOptions
from ovsam_cli.labelling.python_api import label_image, make_prompts
from ovsam_cli.masks import decode_mask

pytestmark = pytest.mark.interop
RGB = np.random.default_rng(3).integers(0, 255, (60, 80, 3), dtype=np.uint8)
GRID = LabelOptions(grid=GridOptions(3), min_stability=0.0, compile="never")


@dataclass(frozen=True)
class Frame:
    """What CVAT says of a frame."""

    conv_mask_to_poly: bool
    conf_threshold: float | None = None
    frame_name: str = "a.jpg"


@pytest.fixture
def labeller(monkeypatch: pytest.MonkeyPatch):
    model = build_small_labeller(GRID)
    monkeypatch.setattr(python_api, "load_labeller", lambda *args, **options: model)
    return model


def test_cvat_function(labeller, record: Record):
    import cvat_sdk.masks

    from ovsam_cli.plugins import cvat

    function = cvat.create(vocabulary="cat, dog, zebra", points_per_side=3)
    assert [label.name for label in function.spec.labels] == ["cat", "dog", "zebra"]
    true = label_image(labeller, RGB)
    assert len(true)
    shapes = function.detect(Frame(conv_mask_to_poly=False), Image.fromarray(RGB))
    for shape, rle, category in zip(shapes, true.segmentations, true.category_ids, strict=True):
        decoded = cvat_sdk.masks.decode_mask(shape.points, image_width=80, image_height=60)
        np.testing.assert_array_equal(decoded, decode_mask(rle))
        assert shape.label_id == category and shape.type.value == "mask"
    polygons = function.detect(Frame(conv_mask_to_poly=True), Image.fromarray(RGB))
    assert {shape.type.value for shape in polygons} == {"polygon"}
    assert function.detect(Frame(False, conf_threshold=1.0), Image.fromarray(RGB)) == []
    record("cvat-sdk", "plug-in", "`auto_annotation` function: spec, masks, polygons", 1.0)


@pytest.mark.parametrize("kind", ["module", "file"])
def test_cvat_command_line_loads_the_function(labeller, kind, record: Record):
    """With its own loader, as `task auto-annotate --function-module` or `--function-file` does."""
    from cvat_cli._internal.common import FunctionLoader
    from cvat_cli._internal.parsers import parse_function_parameter

    module = "ovsam_cli.plugins.cvat"
    file = Path(find_spec(module).origin)
    given = ("model=str:tiny", "vocabulary=str:cat, dog, zebra", "points_per_side=int:3")
    loader = FunctionLoader(
        module if kind == "module" else None,
        file if kind == "file" else None,
        dict(parse_function_parameter(one) for one in given),
    )
    function = loader.load()
    assert [label.name for label in function.spec.labels] == ["cat", "dog", "zebra"]
    shapes = function.detect(Frame(conv_mask_to_poly=False), Image.fromarray(RGB))
    assert len(shapes) == len(label_image(labeller, RGB)) > 0
    what = f"`task auto-annotate --function-{kind}`: its loader and parameters"
    record("cvat-cli", "plug-in", what, None)


@pytest.mark.parametrize("kind", ["detections", "keypoints"])
def test_fiftyone_model(labeller, kind, record: Record):
    """`apply_model` sets `needs_fields` and calls `predict` with each sample."""
    import fiftyone as fo
    import fiftyone.core.models as fom

    from ovsam_cli.plugins.fiftyone import OvsamModel

    model = OvsamModel("tiny", "cat, dog, zebra")
    assert isinstance(model, fom.Model) and isinstance(model, fom.SamplesMixin)
    sample = fo.Sample(filepath="a.jpg")
    if kind == "detections":
        boxes = [[0.1, 0.1, 0.5, 0.5], [0.3, 0.2, 0.5, 0.7]]
        sample["found"] = fo.Detections(
            detections=[fo.Detection(label="?", bounding_box=box) for box in boxes]
        )
        pixels = [(8, 6, 48, 36), (24, 12, 64, 54)]
        true = label_image(labeller, RGB, make_prompts(boxes_xyxy=pixels))
    else:
        sample["found"] = fo.Keypoints(keypoints=[fo.Keypoint(points=[[0.5, 0.5]])])
        true = label_image(labeller, RGB, make_prompts(points=[(40, 30)]))
    model.needs_fields = {"prompt_field": "found"}
    label = model.predict(RGB, sample=sample)
    assert len(label.detections) == len(true)
    for one, rle in zip(label.detections, true.segmentations, strict=True):
        x, y, width, height = (np.array(one.bounding_box) * [80, 60, 80, 60]).round().astype(int)
        whole = np.zeros((60, 80), bool)
        whole[y : y + height, x : x + width] = one.mask
        np.testing.assert_array_equal(whole, decode_mask(rle))
    model.needs_fields = {}
    assert len(model.predict(RGB).detections) == len(label_image(labeller, RGB))
    record("fiftyone", "plug-in", f"model with `prompt_field` of {kind}", 1.0)


def test_fiftyone_refuses_other_prompts(labeller):
    import fiftyone as fo

    from ovsam_cli.errors import InputError
    from ovsam_cli.plugins.fiftyone import OvsamModel

    sample = fo.Sample(filepath="a.jpg", found=fo.Classification(label="cat"))
    model = OvsamModel("tiny", "cat, dog")
    model.needs_fields = {"prompt_field": "found"}
    with pytest.raises(InputError, match="holds Classification, expected Detections or Keypoints"):
        model.predict(RGB, sample=sample)
