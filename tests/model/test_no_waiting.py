"""Nothing in the network asks a device for values: tensors without any go through all of it.

A GPU that is asked for a value has to finish all its work first, and stands still meanwhile.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from model_builders import SMALL_CONFIG, build_small_model, make_prompts, take_prompt
from torch import Tensor

from ovsam_cli.model import layers, ovsam, tiny_field
from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.inference import prepare_for_inference
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptLayout
from ovsam_cli.model.tiny_build import TINY_CONFIG

META = torch.device("meta")
LAYOUTS: dict[str, PromptLayout] = {"p": "unboxed", "n": "unboxed", "b": "boxed", "a": "boxed"}


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device knows no autocast, which is not entered here anyway."""
    for module in (layers, ovsam, tiny_field):
        monkeypatch.setattr(module, "full_precision", lambda device: nullcontext())


def prompts_without_values(kind: str, model: OVSAM, count: int = 5) -> ModelPrompts:
    one = take_prompt(make_prompts(kind, size=model.config.model_size), 0)
    prompts = one.take(torch.zeros(count, dtype=torch.int64))
    return replace(prompts, layout=LAYOUTS[kind]).to(META)


def label(model: OVSAM, prompts: ModelPrompts, num_images: int) -> tuple[Tensor, Tensor]:
    side, text_dim = model.config.model_size, model.config.text_dim
    pixels = torch.empty(num_images, 3, side, side, device=META)
    features = model.encode_images(pixels, ((side, side),) * num_images)
    masks = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits
    fusion = Fusion(mode="auto", category_kind=torch.ones(4, dtype=torch.int64, device=META))
    text = torch.empty(4, 2, text_dim, device=META)
    return masks, model.classify(features, masks, prompts, text, fusion)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("num_images", [1, 2])
@torch.inference_mode()
def test_small_model(kind: str, num_images: int) -> None:
    model = prepare_for_inference(build_small_model(SMALL_CONFIG)).to(META)
    masks, named = label(model, prompts_without_values(kind, model), num_images)
    assert masks.shape[:2] == (5, 1) and named.shape == (5, 5)


@pytest.mark.parametrize("kind", LAYOUTS)
@torch.inference_mode()
def test_tiny_with_one_image(kind: str) -> None:
    """With several it sorts the prompts by image."""
    model = prepare_for_inference(build_ovsam(TINY_CONFIG).eval()).to(META)
    masks, named = label(model, prompts_without_values(kind, model), 1)
    assert masks.shape[:2] == (5, 1) and named.shape == (5, 5)


@torch.inference_mode()
def test_prompts_of_unknown_parts_are_looked_at() -> None:
    """The test would notice: this is the case that has to wait."""
    model = prepare_for_inference(build_small_model(SMALL_CONFIG)).to(META)
    prompts = replace(prompts_without_values("b", model), layout="mixed")
    with pytest.raises((RuntimeError, NotImplementedError)):
        model.encode_prompts(prompts)
