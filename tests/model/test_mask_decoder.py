"""Against the segment-anything package, and batches against single prompts."""

import json
from dataclasses import replace

import pytest
import torch
from model_builders import SMALL_CONFIG, build_small_model, make_prompts, take_prompt
from segment_anything.modeling import MaskDecoder as SamMaskDecoder
from segment_anything.modeling import TwoWayTransformer as SamTransformer

from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.mask_decoder import DecodedMasks, MaskPredictor
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.two_way import TwoWayTransformer


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
    torch.testing.assert_close(found.mask_logits, wanted, rtol=1e-5, atol=1e-5)
    assert found.iou_predictions is None


@pytest.mark.parametrize("num_point_masks", [0, 3])
@torch.inference_mode()
def test_masks_and_predicted_iou_equal_sam(num_point_masks: int) -> None:
    """All of SAM's tokens under SAM's names; the label token, which SAM lacks, is hidden."""
    torch.manual_seed(0)
    theirs = SamMaskDecoder(
        transformer_dim=32,
        transformer=SamTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=48),
        num_multimask_outputs=num_point_masks,
    )
    ours = MaskPredictor(
        embed_dim=32,
        transformer=TwoWayTransformer(depth=2, embed_dim=32, num_heads=4, mlp_dim=48),
        iou_head=True,
        num_point_masks=num_point_masks,
    )
    ours.load_state_dict(theirs.state_dict())  # strict: the same names and shapes
    image, image_pe = torch.randn(1, 32, 8, 8), torch.randn(1, 32, 8, 8)
    sparse, dense = torch.randn(3, 4, 32), torch.randn(3, 32, 8, 8)
    wanted, wanted_iou = theirs.predict_masks(image, image_pe, sparse, dense)
    own = torch.cat([torch.randn(1, 32), ours.output_tokens()])
    tokens = torch.cat([own.expand(3, -1, -1), sparse], dim=1)
    token_mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    token_mask[:, 0] = False
    found = ours(image + dense, image_pe, tokens, token_mask)
    assert found.mask_logits.shape == (3, 1 + num_point_masks, 32, 32)
    torch.testing.assert_close(found.mask_logits, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.iou_predictions, wanted_iou, rtol=1e-5, atol=1e-5)


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
    together = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits
    assert together.shape == (10, 1, 32, 32)
    for row in range(10):
        alone = model.decode_masks(
            features, model.encode_prompts(take_prompt(prompts, row))
        ).mask_logits
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_filler_values_do_not_matter(model: OVSAM, features: ImageFeatures) -> None:
    prompts = make_prompts("pb")
    before = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits
    prompts.point_coords[prompts.point_labels < 0] = 77.0
    after = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits
    torch.testing.assert_close(before, after, rtol=0, atol=0)


@torch.inference_mode()
def test_no_prompts(model: OVSAM, features: ImageFeatures) -> None:
    assert (
        model.decode_masks(features, model.encode_prompts(make_prompts(""))).mask_logits.shape[0]
        == 0
    )


def test_training_reaches_every_part() -> None:
    model = build_small_model()
    features = model.encode_images(torch.randn(2, 3, 128, 128), ((128, 128),) * 2)
    model.decode_masks(
        features, model.encode_prompts(make_prompts("pb"))
    ).mask_logits.sum().backward()
    assert model.mask_decoder.label_token.weight.grad is not None
    assert model.neck.level_encoding.weight.grad is not None


POINT_MASKS = replace(SMALL_CONFIG, iou_head=True, num_point_masks=3)


@torch.inference_mode()
def test_a_lone_point_has_the_mask_of_highest_predicted_iou() -> None:
    """One point alone; not two points, a point in a box, or a point with a mask."""
    model = build_small_model(POINT_MASKS)
    images = torch.randn(2, 3, 128, 128)
    features = model.encode_images(images, ((128, 128), (96, 128)))
    embeddings = model.encode_prompts(make_prompts("pnbamqbpan"))
    assert embeddings.prompts.is_lone_point.tolist() == [kind == "p" for kind in "pnbamqbpan"]
    every = model.mask_decoder.decode_field(
        features.image_embeddings, model.pe.image_pe(), embeddings, features.fine_features
    )
    one = model.decode_masks(features, embeddings)
    assert every.iou_predictions is not None and one.iou_predictions is not None
    assert every.mask_logits.shape == (10, 4, 32, 32) and one.mask_logits.shape == (10, 1, 32, 32)
    for row, kind in enumerate("pnbamqbpan"):
        scores = every.iou_predictions[row].tolist()
        column = scores.index(max(scores[1:])) if kind == "p" else 0
        torch.testing.assert_close(one.iou_predictions[row, 0], every.iou_predictions[row, column])
        torch.testing.assert_close(
            one.mask_logits[row, 0], every.mask_logits[row, column], rtol=1e-4, atol=1e-4
        )


@torch.inference_mode()
def test_a_head_for_one_mask_changes_no_choice(features: ImageFeatures) -> None:
    model = build_small_model(replace(SMALL_CONFIG, iou_head=True))
    decoded = model.decode_masks(features, model.encode_prompts(make_prompts("pb")))
    assert decoded.mask_logits.shape == (2, 1, 32, 32)
    assert decoded.iou_predictions is not None and decoded.iou_predictions.shape == (2, 1)


def test_without_the_head_nothing_is_predicted(model: OVSAM, features: ImageFeatures) -> None:
    decoded = model.decode_masks(features, model.encode_prompts(make_prompts("pb")))
    assert decoded.iou_predictions is None
    assert not [key for key in model.state_dict() if "iou" in key]


def test_training_reaches_the_head_and_all_masks() -> None:
    model = build_small_model(POINT_MASKS)
    features = model.encode_images(torch.randn(2, 3, 128, 128), ((128, 128),) * 2)
    decoded = model.mask_decoder.decode_field(
        features.image_embeddings, model.pe.image_pe(), model.encode_prompts(make_prompts("pb"))
    )
    assert decoded.iou_predictions is not None
    (decoded.mask_logits.sum() + decoded.iou_predictions.sum()).backward()
    predictor = model.mask_decoder.mask_decoder
    assert predictor.iou_token.weight.grad is not None
    assert predictor.mask_tokens.weight.grad.any(dim=1).all()
    for mlp in [predictor.iou_prediction_head, *predictor.output_hypernetworks_mlps]:
        assert all(parameter.grad is not None for parameter in mlp.parameters())


def test_several_masks_need_the_head() -> None:
    with pytest.raises(ValueError, match=r"num_point_masks \(3\).*iou_head"):
        replace(SMALL_CONFIG, num_point_masks=3).check()
    with pytest.raises(ValueError, match=r"num_point_masks \(3\) needs iou_head"):
        build_small_model(replace(SMALL_CONFIG, num_point_masks=3))


def test_predictions_must_fit_the_masks() -> None:
    with pytest.raises(ValueError, match="iou_predictions"):
        DecodedMasks(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1))


def test_inner_size_must_fit_the_heads() -> None:
    with pytest.raises(ValueError, match=r"inner_dim \(30\) must be divisible by 4 heads"):
        TwoWayTransformer(depth=1, embed_dim=30, num_heads=4, mlp_dim=8, cross_dim=15)


@pytest.mark.parametrize("config", [SMALL_CONFIG, POINT_MASKS])
def test_config_round_trip(config: OVSAMConfig) -> None:
    assert OVSAMConfig.from_json(config.to_json()) == config


def test_configs_of_older_files_have_no_head() -> None:
    content = json.loads(SMALL_CONFIG.to_json())
    del content["iou_head"], content["num_point_masks"]
    assert OVSAMConfig.from_json(json.dumps(content)) == SMALL_CONFIG
