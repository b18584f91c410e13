"""`ovsam train sam2clip`, from files to a neck in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.unpickling import compute_sha256
from ovsam_cli.training.batches import SkippedImage, Validated, derive_seed
from ovsam_cli.training.checkpoints import StageFacts, load_trained_weights
from ovsam_cli.training.distill_batches import DistillBatch, DistillSource
from ovsam_cli.training.distributed import Ranks, find_ranks, pick_device
from ovsam_cli.training.loop import LoopOptions, train
from ovsam_cli.training.sam2clip import Sam2ClipLosses, build_neck
from ovsam_cli.training.sam2clip_inputs import (
    Sam2ClipOptions,
    choose_images,
    find_positions,
    hold_out,
    load_live_teacher,
    load_trunk,
)
from ovsam_cli.training.stages import Listeners, StageSummary
from ovsam_cli.training.teacher import Teacher
from ovsam_cli.training.teacher_cache import TeacherCache, save_tensors
from ovsam_cli.training.teacher_images import TeacherImages

NECK_NAME = "sam2clip.safetensors"
STUDENT_PREFIX = "neck_student."  # as in the published SAM2CLIP files
METADATA_KEY = "sam2clip"


def train_sam2clip(options: Sam2ClipOptions, listeners: Listeners) -> StageSummary:
    """Train a neck, or go on training it, and write it down.

    Raises:
        InputError: images, features or settings do not fit together.
        CheckpointError: trunk or teacher cannot be read.
        OutputError: the folder cannot be written.
        DeviceError: no such device, or its memory is full.
    """
    ranks = find_ranks()
    device = pick_device(options.device, ranks)
    config, trunk = load_trunk(options.trunk, listeners.on_message)
    teacher = load_live_teacher(options, config, listeners.on_message)
    cache = None
    if options.teacher_cache is not None:
        shape = (config.embed_dim, config.grid_size, config.grid_size)
        cache = TeacherCache(options.teacher_cache, shape)
    images = choose_images(options, cache, listeners.on_message)
    held_out, images = hold_out(images, options)
    positions = find_positions(options, config, cache, teacher, listeners.on_message)
    neck = build_neck(config, pos_embed=positions, seed=options.seed)
    encoder = None if teacher is None else teacher.encoder
    losses = Sam2ClipLosses(backbone=trunk, neck=neck, teacher=encoder).to(device)
    source = DistillSource(
        images,
        config,
        images_per_batch=options.images_per_batch,
        seed=derive_seed(options.seed, 1),
        cache=cache,
    )
    loop = build_loop_options(options, len(images), ranks)
    listeners.on_message(
        f"{len(images):,} images to learn from, {len(held_out):,} held out; {loop.max_steps:,} "
        f"steps, learning rate {loop.learning_rate:g}"
    )
    summary = train(
        losses,
        source,
        loop,
        device=device,
        validate=_build_validation(losses, held_out, config, cache, device),
        on_log=listeners.on_log,
        on_step=lambda step: listeners.on_progress("steps", step, loop.max_steps),
        facts=StageFacts(
            settings={
                "stage": "sam2clip",
                "images": len(images),
                "image list": images.sha256(),
                "images a micro-batch": options.images_per_batch,
                "trunk": compute_sha256(options.trunk),
                "teacher": _name_teacher(cache, teacher),
                "validation": f"{len(held_out)} images, steps {options.validation_steps}",
            },
            config=config.to_json(),
        ),
    )
    neck_path = options.out / NECK_NAME
    if ranks.is_first:
        weights = load_trained_weights(summary.checkpoint)
        write_neck(neck_path, weights, config, steps=summary.steps)
    return StageSummary(summary, neck_path)


def build_loop_options(options: Sam2ClipOptions, num_images: int, ranks: Ranks) -> LoopOptions:
    """The recipe for this many images on this many processes."""
    recipe = options.recipe
    micro = options.images_per_batch * ranks.world_size
    accumulate = options.accumulate or max(1, recipe.images_a_step // micro)
    images_a_step = micro * accumulate
    return LoopOptions(
        folder=options.out,
        max_steps=options.max_steps or recipe.count_steps(num_images, images_a_step),
        learning_rate=options.learning_rate or recipe.scale_rate(images_a_step),
        max_seconds=options.max_seconds,
        accumulate=accumulate,
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
        gradient_clip=recipe.gradient_clip,
        warmup_steps=recipe.warmup_steps,
        warmup_share=recipe.warmup_share,
        final_share=recipe.final_share,
        precision=options.precision,
        validation_steps=options.validation_steps,
        seed=options.seed,
        num_workers=options.num_workers,
    )


def write_neck(
    path: Path, weights: Mapping[str, Tensor], config: OVSAMConfig, *, steps: int
) -> None:
    """Write a neck under the keys of the published SAM2CLIP files, for every reader of those.

    Args:
        path: the safetensors file.
        weights: the neck's state dict.
        config: of the model it is for; goes into the metadata.
        steps: of training.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {STUDENT_PREFIX + key: value.detach().cpu() for key, value in weights.items()}
    facts = json.dumps({"config": asdict(config), "steps": steps}, sort_keys=True)
    save_tensors(path, tensors, {METADATA_KEY: facts})


def _build_validation(
    losses: Sam2ClipLosses,
    held_out: TeacherImages,
    config: OVSAMConfig,
    cache: TeacherCache | None,
    device: torch.device,
) -> Callable[[Mapping[str, Tensor]], Validated] | None:
    """Scores on images that are not learned from; None without any."""
    if not len(held_out):
        return None
    source = DistillSource(held_out, config, images_per_batch=1, seed=0, cache=cache)

    told: set[SkippedImage] = set()

    def validate(weights: Mapping[str, Tensor]) -> Validated:
        skipped: list[SkippedImage] = []

        def read(index: int) -> DistillBatch:
            batch = source[index]
            skipped.extend(one for one in batch.skipped if one not in told)
            told.update(skipped)
            return batch.to(device)

        scores = losses.compute_scores(weights, map(read, range(len(held_out))))
        return Validated(scores, tuple(skipped))

    return validate


def _name_teacher(cache: TeacherCache | None, teacher: Teacher | None) -> str:
    if teacher is not None:
        return f"live, {teacher.weights_sha256}"
    identity = None if cache is None else cache.index.identity
    return "original files" if identity is None else identity.describe()
