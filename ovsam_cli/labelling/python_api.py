"""Labelling from Python: a model with its names, an image, objects.

    model = load_model("tiny", "cat, dog")
    found = label_image(model, "photo.jpg", make_prompts(boxes_xyxy=[(0, 0, 380, 300)]))

For thousands of images `label_images` is quicker and can be stopped and continued. Where one image
is asked about again and again, `labelling.interactive` encodes it once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ovsam_cli.errors import DeviceError, ImageError, InputError
from ovsam_cli.images import resize_to_input
from ovsam_cli.labelling.interactive import load_labeller, make_prompt
from ovsam_cli.labelling.options import GridOptions, LabelOptions
from ovsam_cli.labelling.pipeline import label_batch
from ovsam_cli.labelling.planner import ImageBatch, PreparedImage, ReadOptions, prepare_image
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.raster import RgbArray
from ovsam_cli.structures import Detections, ImageRecord, Prompts
from ovsam_cli.vocabulary import read_vocabulary


def load_model(
    model: str = "rn50x16",
    vocabulary: str = "coco",
    *,
    devices: str = "auto",
    options: LabelOptions | None = None,
    on_message: Callable[[str], None] = lambda text: None,
) -> Labeller:
    """Load a model that is ready to name things; its `names` tells what the category ids mean.

    Args:
        model: bundled or published name, file, or folder of official files.
        vocabulary: bundled name, file, or names with commas.
        devices: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.
        options: what is kept of the objects found, and the grid where there are no prompts.
        on_message: called with notices for a person.

    Raises:
        InputError: the device is not there, or the model cannot do what an option asks.
        CheckpointError: the weights are missing or broken.
        VocabularyError: the vocabulary cannot be read, or a name cannot be embedded.
    """
    names = read_vocabulary(vocabulary)
    return load_labeller(model, names, devices=devices, options=options, on_message=on_message)


def make_prompts(
    *,
    boxes_xyxy: Sequence[tuple[float, float, float, float]] = (),
    points: Sequence[tuple[float, float]] = (),
) -> Prompts:
    """A prompt for each box, then one for each point on an object; numbered from 1.

    Args:
        boxes_xyxy: left, top, right, bottom in pixels of the upright image.
        points: (x, y) in the same pixels.

    Raises:
        InputError: a box without area, or a number that is none.
    """
    boxes = [make_prompt(box_xyxy=box, prompt_id=row) for row, box in enumerate(boxes_xyxy, 1)]
    first = len(boxes) + 1
    dots = [
        make_prompt(points=[p], labels=[1], prompt_id=row) for row, p in enumerate(points, first)
    ]
    return Prompts.concatenate([*boxes, *dots])


def label_image(
    model: Labeller, image: str | Path | RgbArray, prompts: Prompts | None = None
) -> Detections:
    """Mask and name the objects of one image.

    Args:
        model: from `load_model`.
        image: a file, turned upright by its EXIF tag; or (H, W, 3) uint8 RGB.
        prompts: one object each; None tries the grid of points of the model's options, or one of
            32 a side.

    Returns:
        Objects in the order of the prompts, or by quality for a grid; in pixels of the image.
        Those whose mask is empty, or that the options filter, are not there.

    Raises:
        ImageError: the file cannot be read, or the network's output is not finite.
        InputError: an array that is no RGB image.
        DeviceError: the image needs more memory than there is.
    """
    grid = None if prompts is not None else model.options.grid or GridOptions()
    labeller = replace(model, options=replace(model.options, grid=grid))
    prepared = _prepare(labeller, image)
    if prompts is not None:
        prepared = replace(prepared, prompts=prompts.with_image_index(0))
        if not len(prompts):
            return Detections.empty()
    try:
        (found,) = label_batch(labeller, ImageBatch.of((prepared,)))
    except MemoryError as error:
        name = prepared.record.file_name
        raise DeviceError(f"{name}: not enough memory on {model.device}") from error
    if isinstance(found, ImageError):
        raise found
    return found


def _prepare(model: Labeller, image: str | Path | RgbArray) -> PreparedImage:
    """Read or take an image, and resize it for the model."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(
                f"an image array is (H, W, 3) uint8 in RGB order, found {image.shape} {image.dtype}"
            )
        resized, geometry = resize_to_input(image, model.pixel_format.model_size)
        return PreparedImage(
            ImageRecord(Path("array"), "array", 1), resized, geometry, None, image, 1, ()
        )
    path = Path(image)
    options = ReadOptions(
        model.pixel_format, model.options.exif, None, keeps_rgb=lambda record: True
    )
    found = prepare_image(ImageRecord(path, path.name, 1), options)
    if not isinstance(found, PreparedImage):
        raise ImageError(found.message, reason=found.reason)
    return found
