"""Our own weight files: one safetensors file with the config in its metadata."""

from __future__ import annotations

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
from ovsam_cli.model.official_files import TEXT_PREFIX
from ovsam_cli.model.ovsam import OVSAMConfig
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


def read_own(path: Path) -> ModelWeights | None:
    """A safetensors file that we wrote; None if it is another kind of file."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if CONFIG_KEY not in metadata:
            return None
        config = OVSAMConfig.from_json(metadata[CONFIG_KEY])
    except SafetensorError:
        config = None
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: written by another version of ovsam ({error}); upgrade ovsam-cli"
        ) from error
    tensors = read_tensors(path)
    assert config is not None  # read_tensors raises for a broken file
    length = len(TEXT_PREFIX)
    return ModelWeights(
        config=config,
        tensors={key: t for key, t in tensors.items() if not key.startswith(TEXT_PREFIX)},
        text_weights={key[length:]: t for key, t in tensors.items() if key.startswith(TEXT_PREFIX)},
        paths=(path,),
        license_notice=metadata.get(LICENSE_KEY, ""),
    )


def save_weights(
    tensors: Mapping[str, Tensor],
    config: OVSAMConfig,
    target: Path,
    *,
    license_notice: str,
    half: bool = False,
) -> None:
    """Write tensors and config as one safetensors file, whole or not at all.

    Args:
        tensors: a state dict under canonical keys.
        config: goes into the file's metadata.
        target: the .safetensors file.
        license_notice: goes into the metadata.
        half: round floating tensors to half precision.

    Raises:
        OutputError: the file cannot be written.
    """
    stored = {
        key: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for key, tensor in tensors.items()
    }
    metadata = {CONFIG_KEY: config.to_json(), LICENSE_KEY: license_notice, "format": "pt"}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=".incomplete")
        os.close(handle)
        try:
            save_file(stored, temporary, metadata)
            os.chmod(temporary, 0o644)  # mkstemp's files are for their owner only
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{target}: cannot be written ({error})") from error


def narrow(tensor: Tensor) -> Tensor:
    """As float16 when that loses nothing."""
    half = tensor.half() if tensor.dtype == torch.float32 else tensor
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor
