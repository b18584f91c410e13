"""From a plan to a model that is ready to label: weights, text embeddings, fusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.compiling import compile_model, is_worth_compiling
from ovsam_cli.labelling.device import choose_device, choose_dtype, use_threads
from ovsam_cli.labelling.options import LabelOptions
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.prompt_chunks import list_chunk_sizes
from ovsam_cli.labelling.score_calibration import read_calibration
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.labelling.text_embeddings import (
    TextEmbeddings,
    build_text_embeddings,
    read_text_embeddings,
)
from ovsam_cli.mask_edges.encoding import is_compiling_worthwhile
from ovsam_cli.model.checkpoint import LoadedModel, load_model
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.hub import cache_folder, list_models
from ovsam_cli.model.inference import prepare_for_inference
from ovsam_cli.model.own_files import read_config
from ovsam_cli.model.text_encoder import TextEncoder
from ovsam_cli.model.text_towers import load_text_tower
from ovsam_cli.vocabulary import Vocabulary, resolve_trained_names

MANY_NAMES = 200  # fewer are encoded in seconds, and nobody needs to hear of it


def build_labeller(
    plan: RunPlan, *, on_message: Callable[[str], None]
) -> tuple[LoadedModel, Labeller]:
    """Load the model of a plan and embed its vocabulary.

    Raises:
        InputError: the device is not there, or the model cannot do what an option asks.
        CheckpointError: the weights are missing or broken.
        VocabularyError: a name cannot be embedded.
    """
    request = plan.request
    device = choose_device(request.devices)
    if request.options.threads is not None:
        use_threads(request.options.threads)
    loaded = load_model(request.model, device=device, on_message=on_message)
    prepare_for_inference(loaded.model)
    config = loaded.config
    _check_iou_head(request.options, loaded)
    text_embeddings = _embed_names(plan, config, device, on_message)
    trained = config.trained_on
    if plan.base_vocabulary is not None:
        trained = plan.base_vocabulary.text_names
    labeller = Labeller(
        model=loaded.model,
        vocabulary=plan.vocabulary,
        text_embeddings=torch.from_numpy(text_embeddings.array).to(device),
        text_hash=text_embeddings.text_hash,
        fusion=_build_fusion(request.options, config, plan.vocabulary, trained, device),
        options=request.options,
        unknown_category_id=_unknown_id(request.options, plan.vocabulary),
        device=device,
        dtype=choose_dtype(request.options.dtype, device),
        compiles_masks=is_compiling_worthwhile(plan.num_masks),
        temperature=_find_temperature(loaded, request.options),
    )
    _compile_if_long(plan, labeller, on_message)
    return loaded, labeller


def with_vocabulary(
    labeller: Labeller, vocabulary: Vocabulary, text_encoder: TextEncoder
) -> Labeller:
    """The same model with other names to choose from; names encoded before come from the cache.

    Args:
        labeller: left as it is; both share the network.
        vocabulary: the names.
        text_encoder: of the model, from `load_text_tower`.

    Raises:
        VocabularyError: a name cannot be embedded.
    """
    embeddings = build_text_embeddings(vocabulary, text_encoder, cache_dir=cache_folder())
    config, device = labeller.model.config, labeller.device
    return replace(
        labeller,
        vocabulary=vocabulary,
        text_embeddings=torch.from_numpy(embeddings.array).to(device),
        text_hash=embeddings.text_hash,
        fusion=_build_fusion(labeller.options, config, vocabulary, config.trained_on, device),
        unknown_category_id=_unknown_id(labeller.options, vocabulary),
    )


def _compile_if_long(plan: RunPlan, labeller: Labeller, on_message: Callable[[str], None]) -> None:
    """Compile the network where the option, or the length of the whole run, asks for it."""
    if is_worth_compiling(
        plan.request.options.compile,
        labeller.device,
        labeller.model.config.trunk,
        num_images=plan.num_views,
        num_prompts=plan.num_prompts,
    ):
        sizes = labeller.work_sizes()
        compile_model(
            labeller.model,
            num_images=sizes.images,
            prompt_counts=list_chunk_sizes(sizes.prompts),
            cache_folder=cache_folder() / "compiled",
            on_message=on_message,
        )


def _find_temperature(loaded: LoadedModel, options: LabelOptions) -> float:
    """What `ovsam eval calibrate` found for these weights and this fusion, else 1."""
    found = read_calibration(loaded.paths, loaded.weights_sha256) if loaded.paths else None
    return 1.0 if found is None else found.temperatures.get(options.fusion, 1.0)


def _check_iou_head(options: LabelOptions, loaded: LoadedModel) -> None:
    """Raise InputError where a predicted IoU is asked of a model that predicts none."""
    if options.min_predicted_iou is None or loaded.config.iou_head:
        return
    known = [
        model.name
        for model in list_models()
        if model.path is not None and (config := read_config(model.path)) and config.iou_head
    ]
    raise InputError(
        f"--min-predicted-iou: the model {loaded.name!r} does not predict the IoU of its masks; "
        f"models trained with `ovsam train clip2sam --iou-head` do{_and_known(known)}. "
        "Leave the option out: --min-stability filters masks of every model"
    )


def _and_known(names: list[str]) -> str:
    return f", and of the known models {', '.join(names)}" if names else ""


def _embed_names(
    plan: RunPlan,
    config: OVSAMConfig,
    device: torch.device,
    on_message: Callable[[str], None],
) -> TextEmbeddings:
    """The vocabulary's text embeddings: read from the file given, else built and cached."""
    request = plan.request
    if request.text_embeddings is not None:
        path = request.text_embeddings
        embeddings = read_text_embeddings(path, plan.vocabulary)
        embeddings.check_fits(
            plan.vocabulary,
            text_tower=config.text_tower,
            text_dim=config.text_dim,
            where=str(path),
        )
        return embeddings
    encoder = load_text_tower(request.model, device=device, on_message=on_message)

    def on_progress(done: int, total: int) -> None:
        if total >= MANY_NAMES:
            on_message(f"{done} of {total} new names encoded")

    return build_text_embeddings(
        plan.vocabulary, encoder, cache_dir=cache_folder(), on_progress=on_progress
    )


def _build_fusion(
    options: LabelOptions,
    config: OVSAMConfig,
    vocabulary: Vocabulary,
    trained: tuple[str, ...],
    device: torch.device,
) -> Fusion:
    """Weigh the two branches by whether the head has seen a name (spec section 6)."""
    kinds = vocabulary.kind_for(resolve_trained_names(trained))
    return Fusion(
        mode=options.fusion,
        category_kind=torch.from_numpy(kinds).to(device),
        alpha=config.alpha,
        beta=config.beta,
    )


def _unknown_id(options: LabelOptions, vocabulary: Vocabulary) -> int | None:
    return None if options.unknown_name is None else max(vocabulary.ids) + 1
