"""Our own weight files: one safetensors file with the config in its metadata."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ovsam_cli.errors import CheckpointError, OutputError
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.official_files import TEXT_PREFIX
from ovsam_cli.model.unpickling import read_tensors

CONFIG_KEY = "ovsam_config"
LICENSE_KEY = "license_notice"


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """What a model is made of, before it is built.

    Attributes:
        config: sizes and constants.
        tensors: canonical key -> tensor.
        text_weights: CLIP's text tower under OpenAI's names; may be empty.
        paths: the files read.
        license_notice: what to say about the weights' terms.
    """

    config: OVSAMConfig
    tensors: Mapping[str, Tensor]
    text_weights: Mapping[str, Tensor]
    paths: tuple[Path, ...]
    license_notice: str


def read_config(path: Path) -> OVSAMConfig | None:
    """The config of a safetensors file that we wrote; None if it is another kind of file.

    Raises:
        CheckpointError: the file cannot be read, or is of another version.
    """
    metadata = read_metadata(path)
    if CONFIG_KEY not in metadata:
        return None
    try:
        return OVSAMConfig.from_json(metadata[CONFIG_KEY])
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: written by another version of ovsam ({error}); upgrade ovsam-cli"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors; empty for other files.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        read_tensors(path)  # says what is wrong with the file
        raise


def read_own(path: Path) -> ModelWeights | None:
    """A safetensors file that we wrote; None if it is another kind of file.

    Raises:
        CheckpointError: as `read_config`.
    """
    config = read_config(path)
    if config is None:
        return None
    tensors = read_tensors(path)
    length = len(TEXT_PREFIX)
    return ModelWeights(
        config=config,
        tensors={key: t for key, t in tensors.items() if not key.startswith(TEXT_PREFIX)},
        text_weights={key[length:]: t for key, t in tensors.items() if key.startswith(TEXT_PREFIX)},
        paths=(path,),
        license_notice=read_metadata(path).get(LICENSE_KEY, ""),
    )


def save_weights(
    tensors: Mapping[str, Tensor],
    config: OVSAMConfig,
    target: Path,
    *,
    license_notice: str,
    half: bool = False,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write tensors and config as one safetensors file, whole or not at all.

    Args:
        tensors: a state dict under canonical keys.
        config: goes into the file's metadata.
        target: the .safetensors file.
        license_notice: goes into the metadata.
        half: round floating tensors to half precision.
        notes: further metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    stored = {
        key: (one.half() if half and one.is_floating_point() else one).contiguous()
        for key, one in tensors.items()
    }
    about = {CONFIG_KEY: config.to_json(), LICENSE_KEY: license_notice, "format": "pt"}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=".incomplete")
        os.close(handle)
        try:
            save_file(stored, temporary, about | dict(notes or {}))
            _sort_metadata(Path(temporary))
            os.chmod(temporary, 0o644)  # mkstemp's files are for their owner only
            os.replace(temporary, target)
            target.with_name(f"{target.name}.sha256").unlink(missing_ok=True)  # of what was there
        finally:
            Path(temporary).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{target}: cannot be written ({error})") from error


def _sort_metadata(path: Path) -> None:
    """Put a safetensors file's metadata in order, so that equal models are equal files.

    Safetensors writes them in random order. The header, JSON after its length in eight bytes,
    keeps its length: readers skip the spaces at its end.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def narrow(tensor: Tensor) -> Tensor:
    """As float16 when that loses nothing."""
    half = tensor.half() if tensor.dtype == torch.float32 else tensor
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor
