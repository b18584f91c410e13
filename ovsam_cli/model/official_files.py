"""The published files and their layouts -> one state dict under canonical keys (spec section 1).

Accepted: one full file; a training set (SAM2CLIP + CLIP2SAM files); the hosted demo's set; each
with CLIP's and SAM's own files where needed, with or without an outer `state_dict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model.unpickling import Messages, read_tensors

TEXT_PREFIX = "clip_text."
# What `ovsam train clip2sam` has in its folder: its result, and until then what makes one.
TRAINED_NAME, START_NAME = "model.safetensors", "start.safetensors"
BEST_NAME, LAST_NAME = "best.pt", "last.pt"
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
CANONICAL_PREFIXES = ("backbone.", "neck.", "pe.", "fpn_neck.", "mask_decoder.")
# Where a part comes from when it is missing.
SUPPLIERS = {
    "backbone.": "RN50x16.pt or sam2clip_vith_rn50x16.pth",
    "neck.": "sam2clip_vith_rn50x16.pth or sam2clip_vith_rn50.pth",
    "pe.": "sam_vit_h_4b8939.pth or clip2sam_*_rn50x16.pth",
    "fpn_neck.": "clip2sam_*_rn50x16.pth or R50x16_fpn_lvis_norare_v3det.pth",
    "mask_decoder.": "clip2sam_*_rn50x16.pth or ovsam_R50x16_lvisnorare.pth",
}
_STUDENT_PREFIXES = {"backbone_student.": "backbone.", "neck_student.": "neck."}
_CLIP_STEM = {
    f"{kind}{number}": f"stem.{3 * (number - 1) + position}"
    for number in (1, 2, 3)
    for position, kind in enumerate(("conv", "bn"))
}
_TEXT_STARTS = ("transformer.", "token_embedding.", "ln_final.")
_TEXT_KEYS = ("positional_embedding", "text_projection", "logit_scale")


@dataclass(frozen=True, slots=True)
class OfficialWeights:
    """What a set of official files holds.

    Attributes:
        weights: canonical key -> tensor, float32 where it is floating.
        text_weights: CLIP's text tower under OpenAI's names; may be empty.
        paths: the files that gave something.
        is_release_set: whether FPN and head come from the hosted demo's extra file.
    """

    weights: dict[str, Tensor]
    text_weights: dict[str, Tensor]
    paths: tuple[Path, ...]
    is_release_set: bool


@dataclass(frozen=True, slots=True)
class _Source:
    """A tensor, the file it came from, and whether it beats the same key elsewhere."""

    tensor: Tensor
    path: Path
    wins: bool


def read_official(paths: Sequence[Path], on_message: Messages = None) -> OfficialWeights:
    """Read and merge official files.

    The demo's extra file (the one with a top-level `roi_conv`) overrules the others for FPN and
    head, as the demo does. Otherwise two files may give the same key only with the same value.

    Args:
        paths: weight files; those that hold none of our keys are skipped.
        on_message: told about skipped files and ignored objects.

    Raises:
        CheckpointError: a file cannot be read, two files disagree, or nothing was found.
    """
    merged: dict[str, _Source] = {}
    used = []
    is_release_set = False
    for path in paths:
        named = without_wrapper(read_tensors(path, on_message))
        wins = any(key.startswith("roi_conv.") for key in named)
        found = dict(_iter_canonical(named))
        if not found:
            if on_message is not None:
                on_message(f"{path}: no weights of this model in it; skipped")
            continue
        used.append(path)
        is_release_set |= wins
        for key, tensor in found.items():
            _merge(merged, key, _Source(tensor, path, wins))
    if not merged:
        names = ", ".join(str(path) for path in paths) or "no file"
        raise CheckpointError(
            f"{names}: no OVSAM weights found; expected keys such as pe.* or neck.*"
        )
    tensors = {key: _widen(source.tensor) for key, source in merged.items()}
    length = len(TEXT_PREFIX)
    return OfficialWeights(
        weights={key: t for key, t in tensors.items() if not key.startswith(TEXT_PREFIX)},
        text_weights={key[length:]: t for key, t in tensors.items() if key.startswith(TEXT_PREFIX)},
        paths=tuple(used),
        is_release_set=is_release_set,
    )


def read_text_weights(path: Path, on_message: Messages = None) -> dict[str, Tensor]:
    """CLIP's text tower under OpenAI's names, if the file has one; else empty.

    Raises:
        CheckpointError: the file cannot be read.
    """
    found = _iter_canonical(without_wrapper(read_tensors(path, on_message)))
    length = len(TEXT_PREFIX)
    return {key[length:]: _widen(t) for key, t in found if key.startswith(TEXT_PREFIX)}


def find_weight_files(folder: Path) -> list[Path]:
    """The weight files directly in a folder, sorted.

    Of the folder of a training run one file: its result, or while it has none its best, else its
    last checkpoint.

    Raises:
        CheckpointError: a run that has no checkpoint yet.
    """
    is_run = (folder / START_NAME).is_file()
    for name in (TRAINED_NAME, *((BEST_NAME, LAST_NAME) if is_run else ())):
        if (folder / name).is_file():
            return [folder / name]
    if is_run:
        raise CheckpointError(f"{folder}: a training run without a checkpoint yet; go on training")
    return sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)


def check_weights(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> None:
    """Compare keys and shapes with a model's state dict.

    Raises:
        CheckpointError: naming the first missing or mis-shaped keys and what supplies them.
    """
    missing = [key for key in wanted if key not in weights]
    if missing:
        prefixes = sorted({key.partition(".")[0] + "." for key in missing})
        hints = [f"{p}* is in {SUPPLIERS[p]}" for p in prefixes if p in SUPPLIERS]
        raise CheckpointError(
            f"{source}: {len(missing)} of {len(wanted)} tensors are missing, first "
            f"{', '.join(missing[:5])}. {'; '.join(hints)}; "
            "put the files into one folder and give the folder"
        )
    for key, tensor in wanted.items():
        found = tuple(weights[key].shape)
        if found != tuple(tensor.shape):
            raise CheckpointError(
                f"{source}: {key} has shape {found}, expected {tuple(tensor.shape)}; "
                "these are weights of another model"
            )


def without_wrapper(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the `module.` or `model.` that parallel training puts before every key."""
    for wrapper in ("module.", "model."):
        if named and all(key.startswith(wrapper) for key in named):
            named = {key.removeprefix(wrapper): tensor for key, tensor in named.items()}
    return named


def _iter_canonical(named: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(canonical key, tensor) of one file; everything else is left out."""
    is_clip = any(key.startswith("visual.") for key in named)
    is_sam = any(key.startswith("prompt_encoder.") for key in named)
    for key, tensor in named.items():
        if is_clip:
            name = _rename_clip(key)
        elif is_sam:
            # SAM's own mask decoder has other tokens: only the prompt encoder is shared.
            name = f"pe.{key[15:]}" if key.startswith("prompt_encoder.") else None
        else:
            name = _rename_ovsam(key)
        if name is not None:
            # Batch counters are scalars; files of old PyTorch versions hold them as one row.
            is_counter = name.endswith("num_batches_tracked") and tensor.numel() == 1
            yield name, tensor.reshape(()) if is_counter else tensor


def _rename_clip(key: str) -> str | None:
    """OpenAI's name of a CLIP tensor -> canonical."""
    if key.startswith(_TEXT_STARTS) or key in _TEXT_KEYS:
        return TEXT_PREFIX + key
    first, _, rest = key.removeprefix("visual.").partition(".")
    if not key.startswith("visual."):
        return None
    if first == "attnpool":
        return f"backbone.head.{rest}"
    if first in _CLIP_STEM:
        return f"backbone.{_CLIP_STEM[first]}.{rest}"
    return f"backbone.{first}.{rest}" if first.startswith("layer") else None


def _rename_ovsam(key: str) -> str | None:
    """A training or release file's name of a tensor -> canonical."""
    for prefix, canonical in _STUDENT_PREFIXES.items():
        if key.startswith(prefix):
            return canonical + key.removeprefix(prefix)
    if key.startswith("roi_conv."):
        return f"mask_decoder.{key}"
    return key if key.startswith((*CANONICAL_PREFIXES, TEXT_PREFIX)) else None


def _merge(merged: dict[str, _Source], key: str, new: _Source) -> None:
    """Add a tensor, or decide between it and the one that is there."""
    old = merged.get(key)
    if old is None or (new.wins and not old.wins):
        merged[key] = new
    elif old.wins == new.wins and not key.endswith("num_batches_tracked"):
        if not torch.equal(_widen(old.tensor), _widen(new.tensor)):
            raise CheckpointError(
                f"{old.path} and {new.path} disagree about {key}: they are of different models; "
                "keep one of them in the folder"
            )


def _widen(tensor: Tensor) -> Tensor:
    """Floating tensors as float32; the published CLIP archive holds half precision."""
    return tensor.float() if tensor.is_floating_point() else tensor
