"""From a plan to a model that is ready to label: weights, text embeddings, fusion."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ovsam_cli.labelling.device import choose_device, choose_dtype
from ovsam_cli.labelling.options import LabelOptions
from ovsam_cli.labelling.pipeline import Labeller
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.text_embeddings import build_text_embeddings, text_cache_dir
from ovsam_cli.model.checkpoint import LoadedModel, load_model, load_text_encoder
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.ovsam import OVSAMConfig
from ovsam_cli.vocabulary import Vocabulary, resolve_trained_names


def build_labeller(
    plan: RunPlan, *, on_message: Callable[[str], None]
) -> tuple[LoadedModel, Labeller]:
    """Load the model of a plan and embed its vocabulary.

    Raises:
        InputError: the device is not there.
        CheckpointError: the weights are missing or broken.
        VocabularyError: a name cannot be embedded.
    """
    request = plan.request
    device = choose_device(request.devices)
    loaded = load_model(request.model, device=device, on_message=on_message)
    config = loaded.config
    encoder = load_text_encoder(loaded, device=device)
    text_embeddings = build_text_embeddings(
        plan.vocabulary, encoder, cache_dir=text_cache_dir()
    )
    trained = config.trained_on
    if plan.base_vocabulary is not None:
        trained = plan.base_vocabulary.text_names
    return loaded, Labeller(
        model=loaded.model,
        vocabulary=plan.vocabulary,
        text_embeddings=torch.from_numpy(text_embeddings.array).to(device),
        fusion=_build_fusion(request.options, config, plan.vocabulary, trained, device),
        options=request.options,
        unknown_category_id=_unknown_id(request.options, plan.vocabulary),
        device=device,
        dtype=choose_dtype(request.options.dtype, device),
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
