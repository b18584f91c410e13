"""Checkpoints of `ovsam train clip2sam` as models: trained parts on the weights they started from.

A run's `last.pt` and `best.pt` hold what is trained; `start.safetensors` beside them, written anew
before the first of them, holds the whole model as training began. Both together are a model at
any moment, after a kill too.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.official_files import START_NAME, TEXT_PREFIX
from ovsam_cli.model.own_files import ModelWeights, narrow, read_metadata, read_own, save_weights
from ovsam_cli.model.tiny_build import build_tiny
from ovsam_cli.model.tiny_decoder import TinyMaskDecoder

FINISH_KEY = "ovsam_finish"
ORIGIN_SETTING = "weights"  # among a stage's settings: `Finish.origin`


@dataclass(frozen=True, slots=True)
class BoxCalibration:
    """Arguments of `TinyMaskDecoder.calibrate_boxes`, chosen on photographs."""

    gain: float
    outside: float


@dataclass(frozen=True, slots=True)
class Finish:
    """What makes shipped weights of trained ones.

    Attributes:
        origin: identity of the files that training started from.
        start_share: of the start's values in those of trained parts (WiSE-FT; Wortsman et al.
            2022).
        boxes: trust in boxes that `tiny` gets, or None.
        is_half: floating weights are rounded to half precision.
    """

    origin: str
    start_share: float = 0.0
    boxes: BoxCalibration | None = None
    is_half: bool = False

    def to_json(self) -> str:
        """For the metadata of a start's file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Finish:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError: it is none of ours.
        """
        fields = json.loads(text)
        boxes = fields.pop("boxes")
        return cls(**fields, boxes=None if boxes is None else BoxCalibration(**boxes))


def save_start(folder: Path, start: ModelWeights, finish: Finish) -> None:
    """Write the model that training begins with, without rounding.

    Args:
        folder: of the run.
        start: the whole model; its config as the trained model shall have it.
        finish: what the reader of a checkpoint does to the trained weights.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {**start.tensors}
    tensors |= {TEXT_PREFIX + key: value for key, value in start.text_weights.items()}
    save_weights(
        {key: narrow(value.detach().cpu()) for key, value in tensors.items()},
        start.config,
        folder / START_NAME,
        license_notice=start.license_notice,
        notes={FINISH_KEY: finish.to_json()},
    )


def read_finish(path: Path) -> Finish | None:
    """What a start's file says of finishing; None for other files.

    Raises:
        CheckpointError: the file cannot be read.
    """
    text = read_metadata(path).get(FINISH_KEY)
    try:
        return None if text is None else Finish.from_json(text)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: written by another version of ovsam ({error}); upgrade ovsam-cli"
        ) from error


def read_own_or_checkpoint(path: Path) -> ModelWeights | None:
    """A weights file of ours, or a checkpoint of training; None for another kind of file.

    Raises:
        CheckpointError: the file, or what belongs to it, cannot be read or does not fit.
    """
    return read_checkpoint(path) if path.suffix == ".pt" else read_own(path)


def read_checkpoint(path: Path) -> ModelWeights | None:
    """The model of a run's `last.pt` or `best.pt`, as the end of the run would write it.

    Returns:
        None when the file is no checkpoint of training.

    Raises:
        CheckpointError: no start beside it, or one that does not belong to it.
    """
    saved = _read_saved(path)
    if saved is None:
        return None
    start_path = path.with_name(START_NAME)
    start = read_own(start_path) if start_path.is_file() else None
    finish = read_finish(start_path) if start_path.is_file() else None
    if start is None or finish is None:
        raise CheckpointError(
            f"{path}: a checkpoint of training, which holds the trained parts alone; the others "
            f"were expected in {start_path}, which `ovsam train clip2sam` writes beside it: keep "
            "them together, or give the model.safetensors that the end of a run writes"
        )
    _check_origin(path, saved, finish)
    tensors = _put_in(path, start.tensors, _find_trained(path, saved), finish.start_share)
    if finish.boxes is not None:
        tensors = _calibrate(start.config, tensors, finish.boxes)
    text_weights = start.text_weights
    if finish.is_half:
        tensors, text_weights = _round(tensors), _round(text_weights)
    return replace(start, tensors=tensors, text_weights=text_weights, paths=(path, start_path))


def _read_saved(path: Path) -> Mapping[str, object] | None:
    """What torch's restricted reader finds in a checkpoint; None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return None  # TorchScript, such as OpenAI's CLIP
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (
        *(RuntimeError, ValueError, KeyError, TypeError, OSError, pickle.UnpicklingError),
        *(EOFError, AttributeError, IndexError),
    ):
        return None  # damaged or foreign: the reader of official files says what is wrong
    if not isinstance(content, Mapping) or "step" not in content:
        return None
    return content if {"trained", "weights"} & content.keys() else None


def _find_trained(path: Path, saved: Mapping[str, object]) -> dict[str, Tensor]:
    """The weights to ship: the average where there is one."""
    found = saved.get("weights") or saved.get("average") or saved.get("trained")
    if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()):
        raise CheckpointError(f"{path}: holds no weights of a training run")
    return {str(key): value for key, value in found.items()}


def _check_origin(path: Path, saved: Mapping[str, object], finish: Finish) -> None:
    settings = saved.get("settings")
    origin = settings.get(f"stage {ORIGIN_SETTING}") if isinstance(settings, Mapping) else None
    if origin != finish.origin:
        raise CheckpointError(
            f"{path}: of another run than {START_NAME} beside it (trained from {origin}, not "
            f"{finish.origin}); put the files of one run together"
        )


def _put_in(
    path: Path, start: Mapping[str, Tensor], trained: Mapping[str, Tensor], start_share: float
) -> dict[str, Tensor]:
    tensors = {**start}
    for key, value in trained.items():
        if key not in start or start[key].shape != value.shape:
            raise CheckpointError(
                f"{path}: {key} {tuple(value.shape)} is not of the model in {START_NAME}; put "
                "the files of one run together"
            )
        tensors[key] = value
        if start_share:
            tensors[key] = value.lerp(start[key].to(value.dtype), start_share)
    return tensors


def _calibrate(
    config: OVSAMConfig, tensors: Mapping[str, Tensor], boxes: BoxCalibration
) -> dict[str, Tensor]:
    """Trust in boxes goes into the decoder's own tensors."""
    model = build_tiny(config)
    wanted = model.state_dict()
    model.load_state_dict({key: tensors[key].to(like.dtype) for key, like in wanted.items()})
    assert isinstance(model.mask_decoder, TinyMaskDecoder)
    model.mask_decoder.calibrate_boxes(gain=boxes.gain, outside=boxes.outside)
    return {**tensors, **model.state_dict()}


def _round(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: one.half() if one.is_floating_point() else one for key, one in tensors.items()}
