"""A model of ours -> one file in the published layout, for programs that read that."""

from __future__ import annotations

from pathlib import Path

import torch

from ovsam_cli.errors import CheckpointError, OutputError
from ovsam_cli.model.checkpoint import load_model
from ovsam_cli.model.unpickling import Messages

OFFICIAL_SUFFIX = ".pth"


def export_official(
    source: str, target: Path, *, overwrite: bool = False, on_message: Messages = None
) -> None:
    """Write a model under the official key names, `{"state_dict": ..., "meta": ...}`.

    All five parts are in it (spec section 1.3), in float32, so it is complete by itself. CLIP's
    text tower and the config have no place there: the reader takes the published sizes, with the
    head's pooling of LVIS when `lvis` is in the file's name.

    Args:
        source: as of `load_model`.
        target: the .pth file.
        overwrite: replace the target if it exists.
        on_message: told about ignored objects.

    Raises:
        CheckpointError: the source cannot be loaded, or has another trunk than the published one.
        OutputError: the target exists, is no .pth file, or cannot be written.
    """
    if target.suffix != OFFICIAL_SUFFIX:
        raise OutputError(f"{target}: the official layout is a {OFFICIAL_SUFFIX} file; name it so")
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: exists; give --overwrite to replace it")
    loaded = load_model(source, device=torch.device("cpu"), on_message=on_message)
    if loaded.config.trunk != "clip-resnet":
        raise CheckpointError(
            f"{source}: a model with the trunk {loaded.config.trunk} has no official layout; "
            "only models of the published shape do"
        )
    if loaded.config.iou_head and on_message is not None:
        on_message("the IoU head is written too; programs for the published weights ignore it")
    content = {"state_dict": dict(loaded.model.state_dict()), "meta": {"name": loaded.name}}
    partial = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, partial)
        partial.replace(target)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{target}: cannot be written ({error})") from error
