"""Write files in the layouts of the published ones, with values from the recipe."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from golden.recipe import class_embeddings, tensor_for

HERE = Path(__file__).parent
CLASS_EMBEDDING_FILE = "RN50x16_ParityDataset.pth"
RELEASE_SET = (
    "RN50x16.pt",
    "sam_vit_h_prompt_and_decoder.pth",
    "sam2clip_vith_rn50.pth",
    "R50x16_fpn_lvis_norare_v3det.pth",
    "ovsam_R50x16_lvisnorare.pth",
)
TRAINING_SET = ("sam2clip_vith_rn50x16.pth", "clip2sam_coco_rn50x16.pth")
FULL_FILE = "ovsam_full.pth"


def read_layouts() -> dict[str, dict[str, str]]:
    """File name -> {key in the file: canonical key}."""
    content = json.loads((HERE / "official_keys.json").read_text())
    canonical = list(content["canonical"])
    return {
        name: dict(
            (pair, pair) if isinstance(pair, str) else (pair[0], canonical[pair[1]])
            for pair in spec["keys"]
        )
        for name, spec in content["files"].items()
    }


def is_wrapped(name: str) -> bool:
    """Whether the file keeps its tensors under `state_dict`."""
    content = json.loads((HERE / "official_keys.json").read_text())
    return bool(content["files"][name]["wrapped"])


def recipe_tensor(canonical_key: str) -> Tensor:
    """The recorded model's tensor of a canonical key."""
    return torch.from_numpy(tensor_for(canonical_key, *_shape(canonical_key)))


def _shape(canonical_key: str) -> tuple[tuple[int, ...], str]:
    entry = _canonical_shapes()[canonical_key]
    if entry and isinstance(entry[-1], str):
        return tuple(entry[:-1]), entry[-1]
    return tuple(entry), "float32"


_CACHE: dict[str, list[int | str]] = {}


def _canonical_shapes() -> dict[str, list[int | str]]:
    if not _CACHE:
        _CACHE.update(json.loads((HERE / "official_keys.json").read_text())["canonical"])
    return _CACHE


def write_official(
    folder: Path, names: Sequence[str], make: Callable[[str], Tensor] = recipe_tensor
) -> None:
    """Write files of the official set; `make` gives the tensor of a canonical key."""
    layouts = read_layouts()
    for name in names:
        if name == CLASS_EMBEDDING_FILE:
            torch.save(torch.from_numpy(class_embeddings()), folder / name)
            continue
        tensors = {key: make(canonical) for key, canonical in layouts[name].items()}
        content = {"meta": {}, "state_dict": tensors} if is_wrapped(name) else tensors
        torch.save(content, folder / name)
