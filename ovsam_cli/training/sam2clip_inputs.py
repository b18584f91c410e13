"""What `ovsam train sam2clip` is given, checked before training: trunk, teacher, images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ovsam_cli.errors import InputError
from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.config import PRESETS, OVSAMConfig
from ovsam_cli.model.official_files import check_weights, read_official
from ovsam_cli.model.run_checkpoints import read_own_or_checkpoint
from ovsam_cli.model.unpickling import Messages
from ovsam_cli.training.sam2clip import DistillRecipe, compute_sine_positions
from ovsam_cli.training.teacher import Precision, Teacher, load_teacher, read_teacher_positions
from ovsam_cli.training.teacher_cache import TeacherCache
from ovsam_cli.training.teacher_images import TeacherImages, find_teacher_images

TRUNK_PREFIX = "backbone."


@dataclass(frozen=True, slots=True)
class Sam2ClipOptions:
    """What to learn from, and how.

    Attributes:
        images: folder, or SA-1B layout.
        out: folder of checkpoints, log and the neck.
        trunk: OpenAI's RN50x16.pt, or a weights file that holds the trunk.
        teacher_cache: folder of features; None for a live teacher.
        teacher_checkpoint: SAM's file, for the live teacher or for the positions only.
        recipe: schedule.
        max_steps: overrules the recipe's epochs.
        max_seconds: of one call; the next one goes on.
        images_per_batch: of a micro-batch.
        accumulate: micro-batches a step of each process; None: as many as the recipe's step has.
        learning_rate: None: the recipe's, in proportion to the images a step.
        precision: of the computation.
        device: auto, cpu or cuda.
        num_workers: processes that read images.
        num_validation: images held out.
        validation_steps: steps between validations; 0: at the end.
        seed: of weights and order.
    """

    images: Path
    out: Path
    trunk: Path
    teacher_cache: Path | None = None
    teacher_checkpoint: Path | None = None
    recipe: DistillRecipe = field(default_factory=DistillRecipe)
    max_steps: int | None = None
    max_seconds: float | None = None
    images_per_batch: int = 2
    accumulate: int | None = None
    learning_rate: float | None = None
    precision: Precision = "float32"
    device: str = "auto"
    num_workers: int = 2
    num_validation: int = 0
    validation_steps: int = 0
    seed: int = 0


def load_trunk(path: Path, on_message: Messages = None) -> tuple[OVSAMConfig, nn.Module]:
    """The CLIP trunk of a file and the sizes of the model around it.

    Args:
        path: OpenAI's archive, an official file with the trunk in it, or a model file of ours.
        on_message: told about ignored objects.

    Raises:
        CheckpointError: unreadable, or no trunk in it.
        InputError: the model has another kind of trunk.
    """
    own = read_own_or_checkpoint(path)
    config = PRESETS["rn50x16"] if own is None else own.config
    if config.trunk != "clip-resnet":
        raise InputError(f"{path}: a {config.trunk} trunk; SAM2CLIP is for CLIP's, give RN50x16.pt")
    tensors = read_official([path], on_message).weights if own is None else own.tensors
    with torch.device("meta"):
        trunk = build_ovsam(config).backbone
    assert isinstance(trunk, nn.Module)
    wanted = {TRUNK_PREFIX + key: value for key, value in trunk.state_dict().items()}
    check_weights(tensors, wanted, str(path))
    state = {key.removeprefix(TRUNK_PREFIX): tensors[key].to(wanted[key].dtype) for key in wanted}
    trunk.load_state_dict(state, assign=True)
    return config, trunk


def load_live_teacher(
    options: Sam2ClipOptions, config: OVSAMConfig, on_message: Messages
) -> Teacher | None:
    """SAM's encoder, when there is no cache."""
    if options.teacher_cache is not None:
        return None
    if options.teacher_checkpoint is None:
        raise InputError(
            "no teacher: give --teacher-cache FOLDER (from ovsam train cache-teacher), or "
            "--teacher-checkpoint FILE to run SAM's encoder in every step"
        )
    teacher = load_teacher(options.teacher_checkpoint, on_message=on_message)
    wanted = (config.embed_dim, config.grid_size, config.grid_size)
    if teacher.embedding_shape != wanted:
        raise InputError(
            f"{options.teacher_checkpoint}: features of shape {teacher.embedding_shape}, the neck "
            f"makes {wanted}"
        )
    return teacher


def choose_images(
    options: Sam2ClipOptions, cache: TeacherCache | None, on_message: Callable[[str], None]
) -> TeacherImages:
    """All images, or those that have features."""
    images = find_teacher_images(options.images)
    if cache is None:
        return images
    found = cache.find(images)
    if not len(found):
        raise InputError(
            f"{cache.folder}: features of none of the {len(images):,} images of {images.folder}; "
            "expected features-*.safetensors of `ovsam train cache-teacher` with the same IMAGES "
            f"folder (key {images[0].key}), or {images[0].path.stem}_vit_h_cache.pth"
        )
    cache.read(images[int(found[0])])  # a wrong shape is told now, not by a worker
    if len(found) < len(images):
        on_message(f"{len(images) - len(found):,} images have no features and are left out")
    return images.select(found)


def hold_out(
    images: TeacherImages, options: Sam2ClipOptions
) -> tuple[TeacherImages, TeacherImages]:
    """(held out, left to learn from), by lot."""
    if options.num_validation >= len(images):
        raise InputError(
            f"{options.num_validation} images held out of {len(images)}: none would be left"
        )
    lots = np.random.default_rng([options.seed, 2]).permutation(len(images))
    held_out, left = np.split(lots, [options.num_validation])
    return images.select(np.sort(held_out)), images.select(np.sort(left))


def find_positions(
    options: Sam2ClipOptions,
    config: OVSAMConfig,
    cache: TeacherCache | None,
    teacher: Teacher | None,
    on_message: Callable[[str], None],
) -> Tensor:
    """The teacher's position table, or sines where it is of another width."""
    positions: Tensor | None = None
    if teacher is not None:
        positions = teacher.encoder.pos_embed.data
    elif options.teacher_checkpoint is not None:
        positions = read_teacher_positions(options.teacher_checkpoint)
    elif cache is not None:
        positions = cache.read_positions()
    if positions is None:
        raise InputError(
            f"{options.teacher_cache}: features without the teacher's positions, which the neck "
            "starts from; add --teacher-checkpoint FILE (SAM's own)"
        )
    wanted = (1, config.grid_size, config.grid_size, config.neck_dim)
    if tuple(positions.shape) == wanted:
        return positions
    on_message(
        f"the teacher's positions are {tuple(positions.shape)}, the neck's {wanted}: it gets sines"
    )
    return compute_sine_positions(config.grid_size, config.neck_dim)
