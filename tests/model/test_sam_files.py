"""SAM's own files as a start: the right rows, for models with and without the IoU head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_builders import SMALL_CONFIG, build_small_model, make_prompts
from safetensors.torch import save_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model.checkpoint import load_model
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.sam_files import load_sam_decoder
from ovsam_cli.model.tiny_build import TINY_CONFIG

DIM = 32
CONFIG = replace(SMALL_CONFIG, embed_dim=DIM, decoder_heads=2, decoder_mlp_dim=16)


class Sam(nn.Module):
    """SAM without its image encoder, under the names of its official files."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder(
            embed_dim=DIM,
            image_embedding_size=(8, 8),
            input_image_size=(128, 128),
            mask_in_chans=16,
        )
        transformer = TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=2, mlp_dim=16)
        self.mask_decoder = MaskDecoder(transformer_dim=DIM, transformer=transformer)


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(0)
    return Sam().eval()


@pytest.fixture(params=["sam.pth", "sam.safetensors"])
def sam_file(sam: Sam, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / str(request.param)
    state = {**sam.state_dict(), "image_encoder.pos_embed": torch.zeros(1, 8, 8, 4)}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize(("iou_head", "num_point_masks"), [(False, 0), (True, 0), (True, 3)])
def test_all_shared_tensors_with_the_right_rows(
    sam: Sam, sam_file: Path, iou_head: bool, num_point_masks: int
) -> None:
    config = replace(CONFIG, iou_head=iou_head, num_point_masks=num_point_masks)
    found = load_sam_decoder(sam_file, config)
    model = build_small_model(config)
    prefixes = ("pe.", "mask_decoder.mask_decoder.")
    assert set(found) == {key for key in model.state_dict() if key.startswith(prefixes)}
    rest = model.load_state_dict(found, strict=False)
    assert not rest.unexpected_keys
    theirs = sam.mask_decoder.state_dict()
    rows = 1 + num_point_masks
    own = "mask_decoder.mask_decoder."
    assert torch.equal(found[f"{own}mask_tokens.weight"], theirs["mask_tokens.weight"][:rows])
    assert (f"{own}iou_token.weight" in found) == iou_head
    if iou_head:
        key = "iou_prediction_head.layers.2.bias"
        assert torch.equal(found[own + key], theirs[key][:rows])
    key = "output_hypernetworks_mlps.0.layers.1.weight"
    assert torch.equal(found[own + key], theirs[key])


@torch.inference_mode()
def test_loaded_parts_predict_as_sam(sam: Sam, tmp_path: Path) -> None:
    """A lone point through SAM's own forward: all its masks and their predicted IoU."""
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    config = replace(CONFIG, iou_head=True, num_point_masks=3)
    model = build_small_model(config)
    model.load_state_dict(load_sam_decoder(tmp_path / "sam.pth", config), strict=False)
    prompts = make_prompts("p", num_points=1)
    sparse, dense = sam.prompt_encoder((prompts.point_coords, torch.ones(1, 1)), None, None)
    image = torch.randn(1, DIM, 8, 8)
    wanted, wanted_iou = sam.mask_decoder.predict_masks(
        image, sam.prompt_encoder.get_dense_pe(), sparse, dense
    )
    embeddings = model.encode_prompts(prompts)
    torch.testing.assert_close(embeddings.sparse_prompt_embeddings, sparse)
    predictor = model.mask_decoder.mask_decoder
    own = torch.cat([torch.zeros(1, DIM), predictor.output_tokens()])
    tokens = torch.cat([own[None], sparse], dim=1)
    token_mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    token_mask[:, 0] = False  # the label token, which SAM lacks
    found = predictor(image + dense, model.pe.image_pe(), tokens, token_mask)
    torch.testing.assert_close(found.mask_logits, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.iou_predictions, wanted_iou, rtol=1e-4, atol=1e-4)


def refuse(path: Path, state: dict[str, Tensor], config: OVSAMConfig, message: str) -> None:
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_sam_decoder(path, config)


def test_other_files_are_refused_with_what_was_expected(sam: Sam, tmp_path: Path) -> None:
    state, path = sam.state_dict(), tmp_path / "x.pth"
    refuse(path, {"visual.conv1.weight": torch.zeros(1)}, CONFIG, r"visual.*sam_vit_h_4b8939\.pth")
    # OVSAM's own official files have a decoder, but no longer SAM's.
    refuse(path, dict(build_small_model().state_dict()), CONFIG, "no mask decoder of SAM")
    damaged = {key: tensor for key, tensor in state.items() if "norm_final" not in key}
    refuse(path, damaged, CONFIG, "norm_final_attn.weight is missing")
    wide = replace(CONFIG, embed_dim=64)
    refuse(path, state, wide, r"has shape .* needs .* embed_dim 256")
    many = replace(CONFIG, iou_head=True, num_point_masks=5)
    refuse(path, state, many, "at most 3 point masks|missing among")
    refuse(path, state, TINY_CONFIG, "'tiny' has a decoder of its own")


def test_official_layout_with_iou_parts_is_read_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of one's own, exported under the official keys."""
    from ovsam_cli.model import checkpoint

    monkeypatch.setitem(checkpoint.PRESETS, "rn50x16", CONFIG)
    model = build_small_model(replace(CONFIG, iou_head=True, num_point_masks=3))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "own.pth")
    loaded = load_model(str(tmp_path / "own.pth"), device=torch.device("cpu"))
    assert loaded.config.iou_head and loaded.config.num_point_masks == 3
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], tensor), key
