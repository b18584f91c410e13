"""Against the segment-anything package, and batches against single prompts."""

from dataclasses import replace

import pytest
import torch
from model_builders import make_prompts, take_prompt
from segment_anything.modeling import PromptEncoder as SamPromptEncoder

from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptEncoder, PromptLayout


@pytest.fixture
def encoders() -> tuple[PromptEncoder, SamPromptEncoder]:
    """Ours and SAM's, with the same random weights."""
    torch.manual_seed(0)
    theirs = SamPromptEncoder(32, (8, 8), (128, 128), 16)
    ours = PromptEncoder(embed_dim=32, grid_hw=(8, 8), model_size=128)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def ask_sam(sam: SamPromptEncoder, prompt: ModelPrompts) -> tuple[torch.Tensor, torch.Tensor]:
    """What SAM makes of a single prompt."""
    has_points = prompt.point_labels.shape[1] > 0
    points = (prompt.point_coords, prompt.point_labels) if has_points else None
    boxes = prompt.model_boxes_xyxy if bool(prompt.has_box[0]) else None
    sparse, dense = sam(points, boxes, prompt.prompt_mask_logits)
    return sparse, dense


@pytest.mark.parametrize("row", range(6))
@torch.inference_mode()
def test_single_prompts_equal_sam(
    encoders: tuple[PromptEncoder, SamPromptEncoder], row: int
) -> None:
    ours, theirs = encoders
    prompt = take_prompt(make_prompts("pnbamq"), row)
    embeddings = ours(prompt)
    sparse, dense = ask_sam(theirs, prompt)
    assert embeddings.token_mask is None
    torch.testing.assert_close(embeddings.sparse_prompt_embeddings, sparse, rtol=1e-5, atol=1e-6)
    found = embeddings.dense_prompt_embeddings.expand_as(dense)
    torch.testing.assert_close(found, dense, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_image_pe_equals_sam(encoders: tuple[PromptEncoder, SamPromptEncoder]) -> None:
    ours, theirs = encoders
    torch.testing.assert_close(ours.image_pe(), theirs.get_dense_pe(), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_mixed_batch_has_the_tokens_of_each_prompt(
    encoders: tuple[PromptEncoder, SamPromptEncoder],
) -> None:
    """Valid tokens of a ragged batch, in order, are SAM's tokens of each prompt alone."""
    ours, theirs = encoders
    prompts = make_prompts("pnbamqbp")
    embeddings = ours(prompts)
    assert embeddings.token_mask is not None
    for row in range(8):
        sparse, dense = ask_sam(theirs, take_prompt(prompts, row))
        found = embeddings.sparse_prompt_embeddings[row, embeddings.token_mask[row]]
        torch.testing.assert_close(found, sparse[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            embeddings.dense_prompt_embeddings[row], dense[0], rtol=1e-5, atol=1e-6
        )


LAYOUTS = {"p": "unboxed", "n": "unboxed", "m": "unboxed", "b": "boxed", "a": "boxed"}


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS.items())
@torch.inference_mode()
def test_prompts_alike_need_not_be_looked_at(
    encoders: tuple[PromptEncoder, SamPromptEncoder], kind: str, layout: PromptLayout
) -> None:
    ours, _ = encoders
    prompts = take_prompt(make_prompts(kind, size=ours.model_size), 0)
    expected, found = ours(prompts), ours(replace(prompts, layout=layout))
    assert expected.token_mask is None and found.token_mask is None
    assert torch.equal(found.sparse_prompt_embeddings, expected.sparse_prompt_embeddings)
    assert torch.equal(found.dense_prompt_embeddings, expected.dense_prompt_embeddings)


def test_no_prompts_give_no_tokens(encoders: tuple[PromptEncoder, SamPromptEncoder]) -> None:
    embeddings = encoders[0](make_prompts(""))
    assert embeddings.sparse_prompt_embeddings.shape[0] == 0
    assert embeddings.token_mask is None


def test_positions_are_float32_in_a_half_precision_model() -> None:
    encoder = PromptEncoder(embed_dim=32, grid_hw=(8, 8), model_size=1024)
    frequencies = encoder.pe_layer.positional_encoding_gaussian_matrix.clone()
    points = replace(make_prompts("p", size=1024), prompt_mask_logits=None)
    exact = encoder(points).sparse_prompt_embeddings
    encoder.to(torch.bfloat16)
    encoder.pe_layer.positional_encoding_gaussian_matrix = frequencies
    rounded = encoder(points).sparse_prompt_embeddings
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=2e-2, atol=2e-2)
