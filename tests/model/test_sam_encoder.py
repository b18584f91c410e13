"""The teacher and the neck's ViT blocks, against the segment-anything package."""

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT

from ovsam_cli.model import sam2clip
from ovsam_cli.model.sam_encoder import SamEncoder, build_sam_encoder


@pytest.mark.parametrize("chunked", [False, True])
@torch.inference_mode()
def test_equals_segment_anything(monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    """Windows that do not divide the grid, a global block, its bias whole or row by row."""
    torch.manual_seed(0)
    theirs = ImageEncoderViT(
        img_size=80,
        embed_dim=16,
        depth=3,
        num_heads=2,
        out_chans=8,
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = SamEncoder(
        model_size=80,
        embed_dim=16,
        depth=3,
        num_heads=2,
        global_blocks=(1,),
        window_size=3,
        out_dim=8,
    )
    ours.load_state_dict(theirs.state_dict())
    if chunked:
        monkeypatch.setattr(sam2clip, "MAX_BIAS_ELEMENTS", 2 * 2 * 2 * 5**3)
    pixels = torch.randn(2, 3, 80, 80)
    torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "num_parameters"), [("vit_b", 89_670_912), ("vit_h", 637_026_048)]
)
def test_published_sizes(size: str, num_parameters: int) -> None:
    """The number of parameters that SAM's paper and the specification give."""
    with torch.device("meta"):
        encoder = build_sam_encoder(size)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == num_parameters


def test_unknown_size() -> None:
    with pytest.raises(ValueError, match="vit_x"):
        build_sam_encoder("vit_x")
