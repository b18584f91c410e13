"""From the name of a model to its text tower, without loading the model."""

from __future__ import annotations

from pathlib import Path

import torch

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model.hub import download_model, find_cached
from ovsam_cli.model.known_models import CLIP_FILE, DESCRIPTIONS
from ovsam_cli.model.minilm import MiniLmTextEncoder, read_name_vectors
from ovsam_cli.model.official_files import find_weight_files, read_text_weights
from ovsam_cli.model.run_checkpoints import read_own_or_checkpoint
from ovsam_cli.model.text_encoder import TextEncoder, build_clip_text_encoder
from ovsam_cli.model.unpickling import Messages


def load_text_tower(
    name_or_path: str, *, device: torch.device, on_message: Messages = None
) -> TextEncoder:
    """The text tower that belongs to a model.

    Args:
        name_or_path: as for `load_model`: `tiny`, `rn50x16`, a file, or a folder with files.
        device: where the tower shall run.
        on_message: told about downloads and ignored objects.

    Raises:
        CheckpointError: no such model, or none of its files has CLIP's text tower.
    """
    if name_or_path == "tiny":
        return MiniLmTextEncoder(name_vectors=read_name_vectors(), device=device)
    paths = _find_candidates(name_or_path, on_message)
    for path in paths:
        own = read_own_or_checkpoint(path)
        if own is not None and own.config.text_tower == MiniLmTextEncoder.text_tower:
            return MiniLmTextEncoder(name_vectors=read_name_vectors(), device=device)
        weights = read_text_weights(path, on_message) if own is None else own.text_weights
        if weights:
            return build_clip_text_encoder(weights, source=str(path), device=device)
    raise CheckpointError(
        f"{name_or_path}: no CLIP text tower in it; put RN50x16.pt into the same folder, or run "
        f"`hf download {CLIP_FILE.repo_id} {CLIP_FILE.filename}`"
    )


def _find_candidates(name_or_path: str, on_message: Messages) -> list[Path]:
    """Files that may hold the tower, the likely ones first."""
    cached = find_cached(CLIP_FILE)
    if name_or_path in DESCRIPTIONS:
        if cached is not None:
            return [cached]
        files = download_model(name_or_path, on_message=on_message)
    elif Path(name_or_path).is_dir():
        files = find_weight_files(Path(name_or_path))
    elif Path(name_or_path).is_file():
        files = [Path(name_or_path)]
    else:
        raise CheckpointError(
            f"{name_or_path}: no such file or folder, and no model of that name; known names: "
            f"{', '.join(DESCRIPTIONS)}"
        )
    return files if cached is None else [*files, cached]
