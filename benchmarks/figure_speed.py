"""How long `ovsam label` takes for an image with one box, from reading to a named mask."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from figure_answers import AnnotatedSet, Names

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.datasets import InstanceImage
from ovsam_cli.labelling.options import LabelOptions
from ovsam_cli.labelling.pipeline import label_batch
from ovsam_cli.labelling.planner import ImageBatch, ReadOptions, prepare_image
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.masks import mask_boxes
from ovsam_cli.model.checkpoint import LoadedModel
from ovsam_cli.structures import ImageRecord, ImageResult, Prompts

NUM_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """One image after another, each with the box of its largest object.

    Attributes:
        images_per_second: by the median image.
        cpu_seconds_per_image: processor time of the median image, all threads together; tells
            more than the clock where other work shares the cores.
        num_images: that were timed.
    """

    images_per_second: float
    cpu_seconds_per_image: float
    num_images: int


def build_labeller(loaded: LoadedModel, asked: AnnotatedSet, names: Names) -> Labeller:
    """What `ovsam label` runs with its default options, in float32."""
    return Labeller(
        model=loaded.model,
        vocabulary=asked.vocabulary,
        text_embeddings=names.text_embeddings,
        text_hash=names.text_hash,
        fusion=names.fusion,
        options=LabelOptions(),
        unknown_category_id=None,
        device=names.text_embeddings.device,
        dtype=torch.float32,
    )


def measure_speed(labeller: Labeller, images: Sequence[InstanceImage], *, num_images: int) -> Speed:
    """Label `num_images` images (some again where there are fewer) after a warm-up."""
    clock, cpu = [], []
    for number in range(-NUM_WARM_UP, num_images):
        image = images[number % len(images)]
        started, cpu_started = time.perf_counter(), time.process_time()
        label_one(labeller, image)
        if number >= 0:
            clock.append(time.perf_counter() - started)
            cpu.append(time.process_time() - cpu_started)
    return Speed(1 / float(np.median(clock)), float(np.median(cpu)), num_images)


def label_one(labeller: Labeller, image: InstanceImage) -> None:
    """Read and label an image with the box of its largest object.

    Raises:
        InputError: the image cannot be read.
    """
    largest = max(image.instances, key=lambda one: one.area)
    prompts = Prompts(
        prompt_ids=(1,),
        image_index=np.zeros(1, np.int64),
        point_coords=np.empty((1, 0, 2), np.float32),
        point_labels=np.empty((1, 0), np.int64),
        boxes_xyxy=mask_boxes([largest.segmentation]),
        masks=(None,),
        prompt_scores=np.full(1, np.nan, np.float32),
    )
    prepared = prepare_image(
        ImageRecord(image.path, image.path.name, 1),
        ReadOptions(
            pixel_format=labeller.pixel_format,
            exif="apply",
            find_prompts=lambda record, original_hw: (prompts, ()),
        ),
    )
    if isinstance(prepared, ImageResult):
        raise InputError(f"{image.path}: {prepared.message}")
    label_batch(labeller, ImageBatch.of([prepared]))
