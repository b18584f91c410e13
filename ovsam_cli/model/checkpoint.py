"""From a name, a file or a folder to a model on a device: build, read, check, load, convert."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ovsam_cli.errors import CheckpointError, OutputError
from ovsam_cli.model.clip2sam import Fpn, RegionHead
from ovsam_cli.model.clip_encoder import build_clip_trunk
from ovsam_cli.model.config import PRESETS, OVSAMConfig
from ovsam_cli.model.hub import download_model
from ovsam_cli.model.known_files import check_known_files, write_checksum
from ovsam_cli.model.known_models import DESCRIPTIONS, KNOWN_SHA256, OFFICIAL_NOTICE
from ovsam_cli.model.mask_decoder import MaskDecoder, MaskPredictor
from ovsam_cli.model.official_files import (
    TEXT_PREFIX,
    check_weights,
    find_weight_files,
    read_official,
)
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.own_files import ModelWeights, narrow, save_weights
from ovsam_cli.model.prompt_encoder import PromptEncoder
from ovsam_cli.model.run_checkpoints import read_own_or_checkpoint
from ovsam_cli.model.sam2clip import Sam2ClipNeck
from ovsam_cli.model.two_way import TwoWayTransformer
from ovsam_cli.model.unpickling import Messages, compute_sha256

# The sizes that the hosted demo and the LVIS test configuration pool for the head (spec Q3).
LVIS_ROI_SIZE = 7


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        model: in evaluation mode, on its device, without gradients.
        config: its sizes and constants.
        weights_sha256: of the file, or of the files' checksums in order.
        name: the config's name.
        paths: the files that gave the weights.
        license_notice: what to say about the weights' terms.
    """

    model: OVSAM
    config: OVSAMConfig
    weights_sha256: str
    name: str
    paths: tuple[Path, ...]
    license_notice: str


def build_ovsam(config: OVSAMConfig) -> OVSAM:
    """Make a model of the given sizes, with random weights."""
    if config.trunk == "efficientnet-lite0":
        from ovsam_cli.model.tiny_build import build_tiny

        return build_tiny(config)
    grid_hw = (config.grid_size, config.grid_size)
    return OVSAM(
        config=config,
        backbone=build_clip_trunk(
            layers=config.trunk_layers,
            width=config.trunk_width,
            num_heads=config.trunk_heads,
            image_size=config.trunk_image_size,
            text_dim=config.text_dim,
        ),
        neck=build_sam2clip_neck(config),
        pe=PromptEncoder(embed_dim=config.embed_dim, grid_hw=grid_hw, model_size=config.model_size),
        fpn_neck=Fpn(in_channels=config.fpn_channels, out_channels=config.fpn_dim),
        mask_decoder=_build_mask_decoder(config),
    )


def build_sam2clip_neck(config: OVSAMConfig) -> Sam2ClipNeck:
    """The SAM2CLIP neck of these sizes, untrained."""
    return Sam2ClipNeck(
        in_channels=config.fpn_channels,
        strides=config.fpn_strides,
        model_size=config.model_size,
        grid_size=config.grid_size,
        embed_dim=config.neck_dim,
        depth=config.neck_depth,
        num_heads=config.neck_heads,
        window_size=config.neck_window,
        out_dim=config.embed_dim,
    )


def _build_mask_decoder(config: OVSAMConfig) -> MaskDecoder:
    """Mask decoder and recognition head."""
    transformer = TwoWayTransformer(
        depth=config.decoder_depth,
        embed_dim=config.embed_dim,
        num_heads=config.decoder_heads,
        mlp_dim=config.decoder_mlp_dim,
    )
    return MaskDecoder(
        embed_dim=config.embed_dim,
        text_dim=config.text_dim,
        predictor=MaskPredictor(
            embed_dim=config.embed_dim,
            transformer=transformer,
            iou_head=config.iou_head,
            num_point_masks=config.num_point_masks,
        ),
        roi_conv=RegionHead(
            in_channels=config.fpn_dim,
            text_dim=config.text_dim,
            roi_size=config.head_roi_size,
            strides=config.fpn_strides,
            finest_scale=config.fpn_finest_scale,
        ),
    )


def load_model(
    name_or_path: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    on_message: Messages = None,
) -> LoadedModel:
    """Find, read, check and load a model.

    Args:
        name_or_path: `tiny` (bundled), `rn50x16` (this machine first, then the hub), a
            safetensors file of ours, a checkpoint or folder of `ovsam train clip2sam`, an
            official file, or a folder holding an official set.
        device: where to put it.
        dtype: of the weights; positions are encoded in float32 in any case.
        on_message: told about downloads, skipped files and ignored objects.

    Raises:
        CheckpointError: not found, unreadable, incomplete or of another model.
    """
    paths = _find_paths(name_or_path, on_message)
    digests = check_known_files(paths)
    weights = _read_weights(paths, on_message)
    # A small model may have buffers that are not in its file; the big one is not worth filling
    # with random numbers first.
    with torch.device("meta" if weights.config.trunk == "clip-resnet" else "cpu"):
        model = build_ovsam(weights.config)
    wanted = model.state_dict()
    check_weights(weights.tensors, wanted, name_or_path)
    state = {key: weights.tensors[key].to(like.dtype) for key, like in wanted.items()}
    model.load_state_dict(state, assign=True)
    model.requires_grad_(False).eval()
    _move(model, device, dtype)
    return LoadedModel(
        model=model,
        config=weights.config,
        weights_sha256=_combined_sha256(weights.paths, digests),
        name=weights.config.name,
        paths=weights.paths,
        license_notice=weights.license_notice,
    )


def verify_model(source: str, *, on_message: Messages = None) -> str:
    """Load strictly on the CPU and describe what was found, a line a fact.

    Raises:
        CheckpointError: as `load_model`.
    """
    loaded = load_model(source, device=torch.device("cpu"), on_message=on_message)
    state = loaded.model.state_dict()
    unsound = [k for k, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if unsound:
        raise CheckpointError(
            f"{source}: {len(unsound)} tensors hold NaN or infinity, first {unsound[0]}"
        )
    lines = [
        f"{loaded.name}: {len(state)} tensors, {sum(t.numel() for t in state.values()):,} values"
    ]
    for path in loaded.paths:
        digest = compute_sha256(path)
        note = ", as published" if KNOWN_SHA256.get(path.name) == digest else ""
        lines.append(f"{path}: sha256 {digest}{note}")
    return "\n".join([*lines, f"weights sha256 {loaded.weights_sha256}", loaded.license_notice])


def convert_model(
    source: str, target: Path, *, overwrite: bool = False, on_message: Messages = None
) -> None:
    """Write a model, with CLIP's text tower if it is there, as one safetensors file.

    Its checksum is left beside it and compared whenever the file is loaded.

    Tensors that half precision holds exactly are stored so; nothing is rounded.

    Raises:
        CheckpointError: the source cannot be loaded.
        OutputError: the target exists, is no safetensors file, or cannot be written.
    """
    if target.suffix != ".safetensors":
        raise OutputError(f"{target}: converted weights are a .safetensors file; name it so")
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: exists; give --overwrite to replace it")
    paths = _find_paths(source, on_message)
    check_known_files(paths)
    weights = _read_weights(paths, on_message)
    with torch.device("meta"):
        wanted = build_ovsam(weights.config).state_dict()
    check_weights(weights.tensors, wanted, source)
    tensors = {key: weights.tensors[key] for key in wanted}
    tensors |= {TEXT_PREFIX + key: tensor for key, tensor in weights.text_weights.items()}
    exact = {key: narrow(tensor) for key, tensor in tensors.items()}
    save_weights(exact, weights.config, target, license_notice=weights.license_notice)
    write_checksum(target)


def _find_paths(name_or_path: str, on_message: Messages) -> list[Path]:
    """The weight files of a name, a file or a folder."""
    path = Path(name_or_path)
    if name_or_path in DESCRIPTIONS:
        return download_model(name_or_path, on_message=on_message)
    if path.is_dir():
        files = find_weight_files(path)
        if not files:
            raise CheckpointError(f"{path}: no .pth, .pt, .bin or .safetensors file in this folder")
        return files
    if path.is_file():
        return [path]
    raise CheckpointError(
        f"{name_or_path}: no such file or folder, and no model of that name; known names: "
        f"{', '.join(DESCRIPTIONS)}"
    )


def _read_weights(paths: Sequence[Path], on_message: Messages) -> ModelWeights:
    """The tensors and config of one file of ours, or of official ones."""
    if len(paths) == 1 and (own := read_own_or_checkpoint(paths[0])) is not None:
        return own
    official = read_official(paths, on_message)
    config = PRESETS["rn50x16"]
    names = " ".join(path.name.lower() for path in official.paths)
    if "lvis" in names:
        config = replace(config, head_roi_size=LVIS_ROI_SIZE)
    elif "coco" in names:
        config = replace(config, trained_on=("coco:base",))
    return ModelWeights(
        config=_with_decoder_parts(config, official.weights),
        tensors=official.weights,
        text_weights=official.text_weights,
        paths=official.paths,
        license_notice=OFFICIAL_NOTICE,
    )


def _with_decoder_parts(config: OVSAMConfig, weights: Mapping[str, Tensor]) -> OVSAMConfig:
    """The config for these weights: ours in the official layout may have SAM's IoU parts."""
    prefix = "mask_decoder.mask_decoder."
    tokens = weights.get(f"{prefix}mask_tokens.weight")
    if tokens is None or f"{prefix}iou_token.weight" not in weights:
        return config
    return replace(config, iou_head=True, num_point_masks=len(tokens) - 1)


def _move(model: OVSAM, device: torch.device, dtype: torch.dtype) -> None:
    """To a device and dtype; the positions' frequencies stay float32."""
    encoding = model.pe.pe_layer
    frequencies = encoding.positional_encoding_gaussian_matrix.float()
    model.to(device=device, dtype=dtype)
    encoding.positional_encoding_gaussian_matrix = frequencies.to(device)


def _combined_sha256(paths: Sequence[Path], known: Mapping[Path, str]) -> str:
    """One file's checksum, or the checksum of several files' checksums."""
    digests = [known.get(path) or compute_sha256(path) for path in paths]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
