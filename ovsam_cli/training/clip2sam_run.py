"""`ovsam train clip2sam`, from data to a weights file that labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.datasets import check_image_files, read_instances
from ovsam_cli.labelling.text_embeddings import TextEmbeddings
from ovsam_cli.model.official_files import LAST_NAME, TRAINED_NAME
from ovsam_cli.model.run_checkpoints import ORIGIN_SETTING
from ovsam_cli.model.tiny_decoder import TinyMaskDecoder
from ovsam_cli.model.unpickling import compute_sha256
from ovsam_cli.training.batches import B, BatchSource, LossModule, derive_seed
from ovsam_cli.training.checkpoints import Settings, StageFacts
from ovsam_cli.training.clip2sam import Clip2SamLosses
from ovsam_cli.training.clip2sam_inputs import StartModel, build_start_model, embed_vocabulary
from ovsam_cli.training.clip2sam_options import Clip2SamRunOptions, check_files
from ovsam_cli.training.data_specs import TrainingData, open_training_data
from ovsam_cli.training.distributed import Ranks, find_ranks, joined, locked, pick_device
from ovsam_cli.training.instance_batches import InstanceSource, SourceOptions
from ovsam_cli.training.loop import LoopOptions, TrainingSummary, Validate, train
from ovsam_cli.training.naming import NAME_NOISE, NameLosses, RegionSource
from ovsam_cli.training.recipes import Clip2SamRecipe
from ovsam_cli.training.region_files import RegionFiles, describe_batches
from ovsam_cli.training.run_model import RunModel
from ovsam_cli.training.stages import Listeners, StageSummary
from ovsam_cli.training.validation import build_validation
from ovsam_cli.vocabulary import read_vocabulary

NAMES_PER_STEP = 256


def train_clip2sam(options: Clip2SamRunOptions, listeners: Listeners) -> StageSummary:
    """Train masks and names of a model, or go on training it, and write it down.

    Raises:
        InputError: data, names or settings are not there or do not fit together.
        CheckpointError: weights to start from cannot be read.
        OutputError: the folder cannot be written.
        DeviceError: no such device, or its memory is full.
    """
    ranks = find_ranks()
    device = pick_device(options.device, ranks)
    tell = listeners.on_message if ranks.is_first else _tell_nobody
    check_files(options)
    named = None if options.vocabulary is None else read_vocabulary(options.vocabulary)
    data = open_training_data(options.data, named, options.recipe.classes, tell)
    start = build_start_model(options.source, options.seed, tell)
    check_recipe(start, options.recipe)
    text = embed_vocabulary(start, data.vocabulary, options.text_embeddings, tell)
    source = InstanceSource(data.sets, build_source_options(options, start, len(text.array)))
    loop = build_loop_options(options, data.num_images, ranks)
    tell(f"{data.num_images:,} images, {len(text.array):,} names, {loop.max_steps:,} steps")
    model = RunModel(options.out, start, data.trained_on, options.recipe)
    facts = StageFacts(
        settings=_describe(options, data, start, text),
        config=model.config.to_json(),
        before_save=model.before_save,
    )
    run = _Run(options, loop, device, replace(listeners, on_message=tell), model, facts)
    embeddings = torch.from_numpy(text.array)
    if options.recipe.described_batches is None:
        losses = Clip2SamLosses(start.model, embeddings, options.recipe.losses)
        summary = _train_stage(losses, source, run, _build_validation(losses, options, tell))
    else:
        described = _train_names(embeddings, source, run)
        if described is None:
            nothing = TrainingSummary(0, 0.0, False, -math.inf, options.out / LAST_NAME)
            return StageSummary(nothing, options.out)
        summary = described
    if ranks.is_first:
        model.write_result(summary.checkpoint)
    return StageSummary(summary, options.out / TRAINED_NAME)


@dataclass(frozen=True, slots=True)
class _Run:
    options: Clip2SamRunOptions
    loop: LoopOptions
    device: torch.device
    listeners: Listeners
    model: RunModel
    facts: StageFacts


def _train_stage(
    losses: LossModule[B], source: BatchSource[B], run: _Run, validate: Validate | None = None
) -> TrainingSummary:
    """Train to the end or a stop."""
    run.model.remember([*losses.trained_parts().state_dict()])
    return train(
        losses.to(run.device),
        source,
        run.loop,
        device=run.device,
        validate=validate,
        on_log=run.listeners.on_log,
        on_step=lambda step: run.listeners.on_progress("steps", step, run.loop.max_steps),
        facts=run.facts,
    )


def _train_names(text: Tensor, source: InstanceSource, run: _Run) -> TrainingSummary | None:
    """Describe regions, then train the head of `tiny` on them; None: not all described yet."""
    model, options, ranks = run.model.start.model, run.options, find_ranks()
    count, limit = options.recipe.described_batches, options.max_seconds
    assert count is not None
    deadline = None if limit is None else time.monotonic() + limit
    run.listeners.on_message(f"describing the regions of {count:,} views")
    with joined(ranks, run.device):
        with locked(options.out, ranks):
            described = describe_batches(
                model.to(run.device),
                source,
                count,
                RegionFiles(options.out / "regions", _describe_views(source, run)),
                ranks=ranks,
                deadline=deadline,
                on_batch_done=lambda done: run.listeners.on_progress("views", done, count),
            )
        if described is None:
            return None
        regions = RegionSource(
            *described, batch_size=NAMES_PER_STEP, seed=derive_seed(options.seed, 2)
        )
        if deadline is not None:
            left = max(0.0, deadline - time.monotonic())
            run = replace(run, loop=replace(run.loop, max_seconds=left))
        return _train_stage(NameLosses(model, text, NAME_NOISE), regions, run)


def _describe_views(source: InstanceSource, run: _Run) -> Settings:
    """All that decides about described regions; how their names are learned does not."""
    free = ("stage", "iou head", "text embeddings", "recipe", "validation")
    kept = {name: value for name, value in run.facts.settings.items() if name not in free}
    return {**kept, "views": str(source.options)}


def _tell_nobody(text: str) -> None:
    """The first rank speaks for all."""


def build_source_options(
    options: Clip2SamRunOptions, start: StartModel, num_categories: int
) -> SourceOptions:
    """How micro-batches are made for this model."""
    config, recipe = start.model.config, options.recipe
    return SourceOptions(
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
        num_categories=num_categories,
        images_per_batch=recipe.images_per_batch,
        augmentation=replace(recipe.augmentation, model_size=config.model_size),
        prompts=recipe.prompts,
        regions=recipe.regions,
        seed=derive_seed(options.seed, 1),
    )


def build_loop_options(options: Clip2SamRunOptions, num_images: int, ranks: Ranks) -> LoopOptions:
    """The recipe for this many images on this many processes."""
    recipe = options.recipe
    micro = recipe.images_per_batch * ranks.world_size
    accumulate = options.accumulate or max(1, round(recipe.images_a_step / micro))
    return LoopOptions(
        folder=options.out,
        max_steps=recipe.count_steps(num_images, micro * accumulate),
        learning_rate=recipe.learning_rate,
        max_seconds=options.max_seconds,
        accumulate=accumulate,
        weight_decay=recipe.weight_decay,
        undecayed=recipe.undecayed,
        gradient_clip=recipe.gradient_clip,
        warmup_steps=recipe.warmup_steps,
        schedule=recipe.schedule,
        precision=options.precision,
        average_decay=recipe.average_decay,
        validation_steps=options.validation_steps,
        seed=options.seed,
        num_workers=options.num_workers,
        rate_factors=dict(recipe.rate_factors),
    )


def check_recipe(start: StartModel, recipe: Clip2SamRecipe) -> None:
    """Raise InputError when the recipe trains parts that the model has not."""
    is_tiny = isinstance(start.model.mask_decoder, TinyMaskDecoder)
    if not is_tiny and ("fine_neck" in recipe.losses.trained or recipe.described_batches):
        raise InputError(
            "this recipe is for tiny's parts; give --model tiny, or --recipe coco or lvis"
        )


def _build_validation(
    losses: Clip2SamLosses, options: Clip2SamRunOptions, tell: Callable[[str], None]
) -> Validate | None:
    """Box and centre prompts on annotated images; None without any."""
    if options.validation is None:
        return None
    annotations, images = options.validation
    dataset = read_instances(annotations, images)
    if not any(one.instances for one in dataset.images[: options.validation_images]):
        raise InputError(
            f"{annotations}: no objects to validate on in its first {options.validation_images:,} "
            "images; give annotated ones, or more with --val-count"
        )
    check_image_files(dataset)
    trunk_is_trained = any(
        path.partition(".")[0] == "backbone" for path in options.recipe.losses.trained
    )
    return build_validation(
        losses.model,
        losses.parts,
        {"val": dataset},
        None if trunk_is_trained else options.out / "validation",
        max_images=options.validation_images,
    )


def _describe(
    options: Clip2SamRunOptions, data: TrainingData, start: StartModel, text: TextEmbeddings
) -> dict[str, int | float | str]:
    """What a run cannot change when it goes on."""
    return {
        "stage": "clip2sam",
        "model": options.source.model,
        ORIGIN_SETTING: start.origin,
        "iou head": options.source.iou_head,
        "data": "; ".join(f"{one.place} x {one.weight:g}" for one in options.data),
        "images": data.num_images,
        **{f"annotations of {place}": digest for place, digest in data.digests.items()},
        "vocabulary": data.vocabulary.sha256(),
        "text embeddings": text.text_hash,
        "validation": _describe_validation(options),
        "recipe": str(replace(options.recipe, max_steps=None, images_a_step=0)),
    }


def _describe_validation(options: Clip2SamRunOptions) -> str:
    """What decides which checkpoint is the best."""
    if options.validation is None:
        return "none"
    digest = compute_sha256(options.validation[0])
    return f"{options.validation_images} images, steps {options.validation_steps}, {digest}"
