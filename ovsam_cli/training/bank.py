"""A bank of views with the frozen trunk's maps: each is computed once and used many times.

A view is one safetensors file: half-precision maps, and masks and names in the header. Files
appear whole or not at all, so several processes may fill a bank while another trains from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ovsam_cli.evaluation.datasets import InstanceDataset
from ovsam_cli.masks import decode_mask, encode_mask
from ovsam_cli.model.ovsam import OVSAMConfig
from ovsam_cli.model.tiny_trunk import LiteTrunk
from ovsam_cli.structures import BoolArray
from ovsam_cli.training.data import View, sample_view, to_pixels

_ATTEMPTS = 8  # views of one index that show no object before another image is taken


@dataclass(frozen=True, slots=True)
class BankView:
    """A view as training reads it: four (1, C_l, h_l, w_l) float32 maps, (n, S, S) masks, names."""

    trunk_maps: tuple[Tensor, ...]
    masks: BoolArray
    names: tuple[str, ...]


def fill_bank(
    folder: Path,
    datasets: Sequence[InstanceDataset],
    weights: Sequence[float],
    trunk: LiteTrunk,
    config: OVSAMConfig,
    *,
    numbers: Sequence[int],
    seed: int,
    on_view_done: Callable[[int], None] | None = None,
) -> None:
    """Write the views `numbers` that the bank does not hold yet.

    Args:
        folder: the bank.
        datasets: scenes to take views of.
        weights: how often each data set is drawn.
        trunk: frozen, in evaluation mode.
        config: model size and pixel statistics.
        numbers: view numbers; each view depends on its number and the seed alone.
        seed: of the run.
        on_view_done: called with each written number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probs = np.asarray(weights, float) / sum(weights)
    for number in numbers:
        path = folder / f"{number:06d}.safetensors"
        if path.exists():
            continue
        rng = np.random.default_rng([seed, number])
        view = None
        for _ in range(_ATTEMPTS):
            dataset = datasets[rng.choice(len(datasets), p=probs)]
            image = dataset.images[rng.integers(len(dataset.images))]
            view = sample_view(dataset, image, config.model_size, rng)
            if view is not None:
                write_view(path, view, trunk, config)
                break
        if on_view_done is not None:
            on_view_done(number)


def write_view(path: Path, view: View, trunk: LiteTrunk, config: OVSAMConfig) -> None:
    """Encode a view and write it, whole or not at all."""
    pixels = to_pixels(view.rgb, config.model_size, config.pixel_mean, config.pixel_std)
    with torch.inference_mode():
        maps = trunk(torch.from_numpy(pixels)[None])
    arrays = {
        f"map{level}": np.ascontiguousarray(m[0].half().numpy()) for level, m in enumerate(maps)
    }
    header = {
        "masks": json.dumps([encode_mask(mask) for mask in view.masks]),
        "names": json.dumps(view.names),
    }
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(arrays, partial, header)
    os.replace(partial, path)


def find_views(folder: Path) -> list[Path]:
    """The views of a bank that are there now, sorted."""
    return sorted(folder.glob("*.safetensors"))


def read_view(path: Path) -> BankView:
    """Read one view."""
    with safe_open(path, framework="pt") as opened:
        maps = tuple(opened.get_tensor(f"map{level}").float()[None] for level in range(4))
        header = opened.metadata()
    masks = np.stack([decode_mask(one) for one in json.loads(header["masks"])])
    return BankView(maps, masks, tuple(json.loads(header["names"])))
