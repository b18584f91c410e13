"""`tiny`: ragged prompts of every kind, leakage of the untrained answer, config, own files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_builders import make_prompts, take_prompt

from ovsam_cli.model.checkpoint import build_ovsam, load_model
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.own_files import save_weights
from ovsam_cli.model.tiny_build import TINY_CONFIG

SMALL_TINY = replace(TINY_CONFIG, model_size=128, grid_size=8)


@pytest.fixture(scope="module")
def model() -> OVSAM:
    torch.manual_seed(0)
    return build_ovsam(SMALL_TINY).eval()


def encode(model: OVSAM) -> ImageFeatures:
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    return model.encode_images(pixels, ((128, 128), (96, 128)))


@torch.inference_mode()
def test_ragged_prompts_equal_each_alone(model: OVSAM) -> None:
    features, prompts = encode(model), make_prompts("pnbamqbn")
    together = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits
    for row in range(8):
        alone = model.decode_masks(
            features, model.encode_prompts(take_prompt(prompts, row))
        ).mask_logits
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_untrained_answer_stays_near_its_box(model: OVSAM) -> None:
    prompts = make_prompts("bbbbbb")
    logits = model.decode_masks(encode(model), model.encode_prompts(prompts)).mask_logits[:, 0]
    centers = (torch.arange(logits.shape[-1]) + 0.5) * (128 / logits.shape[-1])
    for mask, (left, top, right, bottom) in zip(logits > 0, prompts.model_boxes_xyxy, strict=True):
        columns, rows = (centers > left - 16) & (centers < right + 16), (centers > top - 16)
        inside = (rows & (centers < bottom + 16))[:, None] & columns
        assert not (mask & ~inside).any()


def test_config_round_trip() -> None:
    assert OVSAMConfig.from_json(TINY_CONFIG.to_json()) == TINY_CONFIG


def test_saved_weights_load_to_the_same_model(model: OVSAM, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_weights(model.state_dict(), SMALL_TINY, path, license_notice="own", half=True)
    loaded = load_model(str(path), device=torch.device("cpu"))
    assert loaded.config == SMALL_TINY
    assert loaded.name == "tiny"
    wanted = model.state_dict()
    assert loaded.model.state_dict().keys() == wanted.keys()
    for key, tensor in loaded.model.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, wanted[key], rtol=2e-3, atol=1e-4, msg=key)
