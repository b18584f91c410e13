"""Against the segment-anything package, and batches against single prompts."""

import pytest
import torch
from model_builders import SMALL_CONFIG, build_small_model, make_prompts, take_prompt
from segment_anything.modeling import MaskDecoder as SamMaskDecoder
from segment_anything.modeling import TwoWayTransformer as SamTransformer

from ovsam_cli.model.mask_decoder import MaskPredictor, TwoWayTransformer
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures


@torch.inference_mode()
def test_masks_equal_sam() -> None:
    """SAM with three extra masks has more tokens: its tokens are given to ours one by one."""
    torch.manual_seed(0)
    theirs = SamMaskDecoder(
        transformer_dim=32,
        transformer=SamTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=48),
        num_multimask_outputs=0,
    )
    ours = MaskPredictor(
        embed_dim=32,
        transformer=TwoWayTransformer(depth=2, embed_dim=32, num_heads=4, mlp_dim=48),
    )
    weights = theirs.state_dict()
    ours.load_state_dict({key: weights[key] for key in ours.state_dict()})
    image, image_pe = torch.randn(1, 32, 8, 8), torch.randn(1, 32, 8, 8)
    sparse, dense = torch.randn(3, 4, 32), torch.randn(3, 32, 8, 8)
    wanted, _ = theirs.predict_masks(image, image_pe, sparse, dense)
    own = torch.cat([weights["iou_token.weight"], weights["mask_tokens.weight"]])
    tokens = torch.cat([own.expand(3, -1, -1), sparse], dim=1)
    found = ours(image + dense, image_pe, tokens, None)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def model() -> OVSAM:
    return build_small_model()


@pytest.fixture(scope="module")
def features(model: OVSAM) -> ImageFeatures:
    """Two images, the second smaller than the frame."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(2, 3, 128, 128, generator=generator)
    with torch.inference_mode():
        return model.encode_images(pixels, ((128, 128), (96, 128)))


@torch.inference_mode()
def test_a_batch_of_mixed_prompts_equals_each_alone(model: OVSAM, features: ImageFeatures) -> None:
    """Ragged points, boxes and masks of two images at once: company changes nothing."""
    prompts = make_prompts("pnbamqbpan")
    together = model.decode_masks(features, model.encode_prompts(prompts))
    assert together.shape == (10, 1, 32, 32)
    for row in range(10):
        alone = model.decode_masks(features, model.encode_prompts(take_prompt(prompts, row)))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_filler_values_do_not_matter(model: OVSAM, features: ImageFeatures) -> None:
    prompts = make_prompts("pb")
    before = model.decode_masks(features, model.encode_prompts(prompts))
    prompts.point_coords[prompts.point_labels < 0] = 77.0
    after = model.decode_masks(features, model.encode_prompts(prompts))
    torch.testing.assert_close(before, after, rtol=0, atol=0)


@torch.inference_mode()
def test_no_prompts(model: OVSAM, features: ImageFeatures) -> None:
    assert model.decode_masks(features, model.encode_prompts(make_prompts(""))).shape[0] == 0


def test_training_reaches_every_part() -> None:
    model = build_small_model()
    features = model.encode_images(torch.randn(2, 3, 128, 128), ((128, 128),) * 2)
    model.decode_masks(features, model.encode_prompts(make_prompts("pb"))).sum().backward()
    assert model.mask_decoder.label_token.weight.grad is not None
    assert model.neck.level_encoding.weight.grad is not None


def test_inner_size_must_fit_the_heads() -> None:
    with pytest.raises(ValueError, match=r"inner_dim \(30\) must be divisible by 4 heads"):
        TwoWayTransformer(depth=1, embed_dim=30, num_heads=4, mlp_dim=8, cross_dim=15)


def test_config_round_trip() -> None:
    assert SMALL_CONFIG.from_json(SMALL_CONFIG.to_json()) == SMALL_CONFIG
