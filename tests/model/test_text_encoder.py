"""The CLIP text tower against recorded outputs, open_clip and itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ovsam_cli.errors import CheckpointError, VocabularyError
from ovsam_cli.model.text_encoder import (
    VILD_TEMPLATES,
    ClipTextEncoder,
    build_clip_text_encoder,
    imagenet_templates,
)
from ovsam_cli.vocabulary import reference_names
from tests.golden.recipe import tensor_for

GOLDEN = Path(__file__).parents[1] / "golden"
REFERENCE = json.loads((GOLDEN / "text_reference.json").read_text())
ARRAYS = np.load(GOLDEN / "text_reference.npz")
CPU = torch.device("cpu")


def small_state(embed_dim: int = 128, depth: int = 2) -> dict[str, torch.Tensor]:
    encoder = ClipTextEncoder(embed_dim=embed_dim, text_dim=32, depth=depth)
    return {
        key: torch.from_numpy(tensor_for(f"clip_text.{key}", tuple(tensor.shape)))
        for key, tensor in encoder.state_dict().items()
    }


@pytest.fixture(scope="module")
def small_encoder() -> ClipTextEncoder:
    return build_clip_text_encoder(small_state(), source="test", device=CPU)


@pytest.fixture(scope="module")
def full_encoder() -> ClipTextEncoder:
    """The full-size tower with the recipe's weights (about half a gigabyte)."""
    with torch.device("meta"):
        shapes = ClipTextEncoder().state_dict()
    state = {
        key: torch.from_numpy(tensor_for(f"clip_text.{key}", tuple(tensor.shape)))
        for key, tensor in shapes.items()
    }
    return build_clip_text_encoder(state, source="recipe", device=CPU)


def test_templates_of_the_paper() -> None:
    assert len(VILD_TEMPLATES) == REFERENCE["n_templates"] == 14
    assert VILD_TEMPLATES[4] == "a photo of a {} in the scene"
    assert VILD_TEMPLATES[8] == "This is a photo of a small {}."
    assert VILD_TEMPLATES[-1] == "There is a large {} in the scene."


def test_imagenet_templates() -> None:
    templates = imagenet_templates()
    assert len(templates) == 80
    assert all(template.count("{}") == 1 for template in templates)


def test_token_ids_equal_the_recorded_ones(small_encoder: ClipTextEncoder) -> None:
    texts = list(REFERENCE["tokens"])
    token_ids = small_encoder.tokenize(texts)
    assert token_ids.shape == (len(texts), REFERENCE["context_length"])
    for row, wanted in zip(token_ids.tolist(), REFERENCE["tokens"].values(), strict=True):
        assert row == wanted + [0] * (77 - len(wanted))


def test_too_long_a_name_is_refused_not_cut(small_encoder: ClipTextEncoder) -> None:
    with pytest.raises(VocabularyError, match="102 tokens, but the text tower reads at most 77"):
        small_encoder.encode_names(["cat " * 100], ["{}"])


def test_missing_text_weights_are_named() -> None:
    state = small_state()
    with pytest.raises(CheckpointError, match="RN50\\.pt: no CLIP text tower"):
        build_clip_text_encoder({"visual.conv1": torch.zeros(1)}, source="RN50.pt", device=CPU)
    del state["ln_final.bias"]
    with pytest.raises(CheckpointError, match=r"lacks \['ln_final\.bias'\]"):
        build_clip_text_encoder(state, source="x.pt", device=CPU)


def test_same_weights_same_hash_whatever_else_is_in_the_file() -> None:
    first = build_clip_text_encoder(small_state(), source="a", device=CPU)
    whole = {**small_state(), "visual.conv1.weight": torch.zeros(2), "logit_scale": torch.ones(())}
    assert build_clip_text_encoder(whole, source="b", device=CPU).weights_sha256 == (
        first.weights_sha256
    )


def test_trimmed_context_equals_open_clip_at_full_length(small_encoder: ClipTextEncoder) -> None:
    """open_clip encodes all 77 positions; ours stops at the longest text."""
    from open_clip.transformer import QuickGELU, TextTransformer

    tower = TextTransformer(
        context_length=77, vocab_size=49408, width=128, heads=2, layers=2, output_dim=32,
        act_layer=QuickGELU,
    )  # fmt: skip
    tower.load_state_dict(small_state(), strict=False)
    token_ids = small_encoder.tokenize(["a photo of a cat.", "zebra", "a large glass of red wine"])
    with torch.inference_mode():
        torch.testing.assert_close(
            small_encoder(token_ids), tower.eval()(token_ids), rtol=1e-5, atol=1e-5
        )


def test_batch_equals_each_alone(small_encoder: ClipTextEncoder) -> None:
    names = ["cat", "a very small traffic light", "zebra", "tape (sticky cloth or paper)"]
    together = small_encoder.encode_names(names, VILD_TEMPLATES)
    alone = torch.cat([small_encoder.encode_names([name], VILD_TEMPLATES) for name in names])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(4))


@pytest.mark.parity
def test_features_equal_the_recorded_ones(full_encoder: ClipTextEncoder) -> None:
    with torch.inference_mode():
        features = full_encoder.encode_texts(list(REFERENCE["tokens"])).numpy()
    wanted = ARRAYS["text_embed"]
    assert np.abs(features - wanted).max() <= 5e-5 * np.abs(wanted).max()


@pytest.mark.parity
def test_classifier_equals_the_recorded_one(full_encoder: ClipTextEncoder) -> None:
    rows = []
    for listed in REFERENCE["classes"]:
        names = reference_names(listed)
        with torch.inference_mode():
            encoded = full_encoder.encode_names(names, VILD_TEMPLATES).numpy()
        padding = np.repeat(encoded[:1], 4 - len(names), axis=0)
        rows.append(np.concatenate([encoded, padding]))
    wanted = ARRAYS["classifier"]
    assert np.abs(np.stack(rows) - wanted).max() <= 5e-5 * np.abs(wanted).max()
