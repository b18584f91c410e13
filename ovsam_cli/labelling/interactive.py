"""One image asked about many times: encoded once, then a prompt costs one decode.

    labeller = load_labeller("tiny", read_vocabulary("cat, dog"))
    encoded = encode_image(labeller, rgb)
    found = label_prompts(labeller, encoded, make_prompt(points=[(120, 80)], labels=[1]))

Nothing is remembered between calls: the caller keeps the `EncodedImage`, and drops it to free its
memory. `labeller.with_vocabulary` changes the names; images that are encoded stay good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ovsam_cli.errors import DeviceError, ImageError, InputError
from ovsam_cli.images import resize_to_input
from ovsam_cli.labelling.device_batch import View, ViewFeatures, encode_views, iter_prompt_outputs
from ovsam_cli.labelling.finishing import finish_chunk, join_image
from ovsam_cli.labelling.labeller import build_labeller
from ovsam_cli.labelling.options import LabelOptions, LabelRequest
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.planner import PreparedImage
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.labelling.work_sizes import WorkSizes
from ovsam_cli.raster import RgbArray
from ovsam_cli.structures import Detections, ImageGeometry, ImageRecord, Prompts
from ovsam_cli.vocabulary import Vocabulary

PROMPTS_PER_CALL = 64


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image after the image encoder.

    Attributes:
        image: resized, without prompts.
        views: its features, on the labeller's device.
    """

    image: PreparedImage
    views: ViewFeatures

    @property
    def geometry(self) -> ImageGeometry:
        """The frames of the image."""
        return self.image.geometry

    @property
    def num_bytes(self) -> int:
        """What it keeps, on the device and beside it."""
        features = self.views.features
        fine = features.fine_features
        tensors = [features.image_embeddings, *features.fpn_features, features.clip_features]
        tensors += [] if fine is None else [fine]
        return self.image.input_rgb.nbytes + sum(tensor.nbytes for tensor in tensors)


def load_labeller(
    model: str,
    vocabulary: Vocabulary,
    *,
    devices: str = "auto",
    options: LabelOptions | None = None,
    on_message: Callable[[str], None] = lambda text: None,
) -> Labeller:
    """Load a model that is ready to name things; never compiled, for that pays in long runs only.

    Args:
        model: bundled or published name, file, or folder of official files.
        vocabulary: the names to choose from.
        devices: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.
        options: how objects are found and named; without a grid.
        on_message: called with notices for a person.

    Raises:
        InputError: the device is not there, or the model cannot do what an option asks.
        CheckpointError: the weights are missing or broken.
        VocabularyError: a name cannot be embedded.
    """
    request = LabelRequest(
        images=(),
        vocabulary=vocabulary.name,
        out=Path(),
        model=model,
        devices=devices,
        options=options or LabelOptions(compile="never"),
    )
    plan = RunPlan(request, (), vocabulary, None, None, ())
    return build_labeller(plan, on_message=on_message)[1]


def make_prompt(
    *,
    points: Sequence[tuple[float, float]] = (),
    labels: Sequence[int] = (),
    box_xyxy: tuple[float, float, float, float] | None = None,
    prompt_id: int | str = 1,
) -> Prompts:
    """One prompt of points, a box, or both.

    Args:
        points: (x, y) pixels, original frame.
        labels: one a point: 1 on the object, 0 beside it.
        box_xyxy: around the object, pixels of the original frame.
        prompt_id: given back with the object.

    Raises:
        InputError: nothing points at an object, or a number cannot be one.
    """
    corners = box_xyxy or (np.nan,) * 4
    if len(points) != len(labels) or not set(labels) <= {0, 1}:
        raise InputError(f"{len(points)} points with labels {list(labels)}: 0 or 1 for each point")
    if box_xyxy is None and 1 not in labels:
        raise InputError("no point on the object and no box; give at least one of them")
    numbers = np.array([*(n for point in points for n in point), *(box_xyxy or ())], float)
    if not np.isfinite(numbers).all():
        raise InputError("a coordinate is NaN or infinite; give pixels")
    if box_xyxy is not None and not (corners[2] > corners[0] and corners[3] > corners[1]):
        raise InputError(f"box {list(corners)}: no area; give left, top, right, bottom")
    return Prompts(
        prompt_ids=(prompt_id,),
        image_index=np.zeros(1, np.int64),
        point_coords=np.array(points, np.float32).reshape(1, -1, 2),
        point_labels=np.array(labels, np.int64).reshape(1, -1),
        boxes_xyxy=np.array([corners], np.float32),
        masks=(None,),
        prompt_scores=np.full(1, np.nan, np.float32),
    )


@torch.inference_mode()
def encode_image(labeller: Labeller, rgb: RgbArray, *, file_name: str = "image") -> EncodedImage:
    """Run the image encoder, the slow part.

    Args:
        labeller: the model; its names do not matter here.
        rgb: (H, W, 3) uint8, original frame.
        file_name: for results and messages.

    Raises:
        DeviceError: the image needs more memory than there is.
    """
    resized, geometry = resize_to_input(rgb, labeller.pixel_format.model_size)
    record = ImageRecord(Path(file_name), file_name, 1)
    image = PreparedImage(record, resized, geometry, None, None, 1, ())
    pixels = torch.tensor(resized, device=labeller.device)
    try:
        views = encode_views(labeller, (View(0, geometry),), [pixels], _make_sizes())
    except MemoryError as error:
        raise DeviceError(f"{file_name}: not enough memory on {labeller.device}") from error
    return EncodedImage(image, views)


@torch.inference_mode()
def label_prompts(labeller: Labeller, encoded: EncodedImage, prompts: Prompts) -> Detections:
    """Masks and names for prompts of one image.

    Args:
        labeller: the model that encoded the image, with any vocabulary.
        encoded: from `encode_image`.
        prompts: B prompts, original frame.

    Returns:
        The objects in prompt order, fewer than B where a mask is empty or filtered out.

    Raises:
        ImageError: the network's output is not finite.
        DeviceError: not enough memory.
    """
    own = prompts.with_image_index(0)
    try:
        outputs = iter_prompt_outputs(labeller, encoded.views, own, _make_sizes())
        parts = [part for output in outputs for part in finish_chunk(labeller, output)]
    except MemoryError as error:
        name = encoded.image.record.file_name
        raise DeviceError(f"{name}: not enough memory on {labeller.device}") from error
    found = join_image(labeller, encoded.image, parts)
    if isinstance(found, ImageError):
        raise found
    return found


def _make_sizes() -> WorkSizes:
    """One image, few prompts: nothing is filled up, as a compiled network would want it."""
    return WorkSizes(images=1, prompts=PROMPTS_PER_CALL)
