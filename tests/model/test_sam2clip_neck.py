"""Relative positions in both forms of attention, and windows whose padding is not computed."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ovsam_cli.model import sam2clip
from ovsam_cli.model.sam2clip import RelativeAttention, VitBlock, split_windows


def build_attention(side: int) -> RelativeAttention:
    torch.manual_seed(0)
    attention = RelativeAttention(embed_dim=12, num_heads=3, grid_size=side).double()
    torch.nn.init.normal_(attention.rel_pos_h)
    torch.nn.init.normal_(attention.rel_pos_w)
    return attention


def attend_cell_by_cell(attention: RelativeAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(d) + q . h[yi - yj + L - 1] + q . w[xi - xj + L - 1]) v (spec 3.2)."""
    side = round(q.shape[2] ** 0.5)
    logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    for i in range(side * side):
        for j in range(side * side):
            rows, columns = i // side - j // side, i % side - j % side
            terms = attention.rel_pos_h[rows + side - 1] + attention.rel_pos_w[columns + side - 1]
            logits[:, :, i, j] += q[:, :, i] @ terms
    return logits.softmax(dim=-1) @ v


@pytest.mark.parametrize("max_elements", [2**25, 1], ids=["at once", "row by row"])
@torch.inference_mode()
def test_bias(max_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam2clip, "MAX_BIAS_ELEMENTS", max_elements)
    attention = build_attention(4)
    q, k, v = torch.randn(3, 2, 3, 16, 4, dtype=torch.float64)
    found = attention.attend_with_bias(q, k, v, 4)
    wanted = attend_cell_by_cell(attention, q, k, v)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*flex_attention:UserWarning")
@torch.inference_mode()
def test_terms_equal_the_bias() -> None:
    """The form for compiled runs on a GPU, run plainly here."""
    attention = build_attention(4).float()
    q, k, v = torch.randn(3, 2, 3, 16, 4)
    found = attention.attend_with_terms(q, k, v, 4)
    wanted = attention.attend_with_bias(q, k, v, 4)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_padding_is_a_token_of_zeros() -> None:
    """Projecting before the windows are cut equals projecting zero-padded windows."""
    torch.manual_seed(0)
    block = VitBlock(embed_dim=12, num_heads=3, mlp_dim=8, grid_size=5, window_size=3).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    grid = torch.randn(2, 5, 5, 12, dtype=torch.float64)
    attention, normed = block.attn, block.norm1(grid)
    padded = F.pad(normed, (0, 0, 0, 1, 0, 1))  # (2, 6, 6, 12): four windows an image
    windows = padded.view(2, 2, 3, 2, 3, 12).transpose(2, 3).reshape(8, 3, 3, 12)
    attended = attention.proj(attention(attention.qkv(windows)))
    joined = attended.view(2, 2, 2, 3, 3, 12).transpose(2, 3).reshape(2, 6, 6, 12)[:, :5, :5]
    wanted = grid + joined
    wanted = wanted + block.mlp(block.norm2(wanted))
    torch.testing.assert_close(block(grid), wanted, rtol=1e-9, atol=1e-9)


def test_windows_without_padding_keep_the_grid() -> None:
    grid = torch.randn(1, 4, 4, 3)
    windows = split_windows(grid, 2, torch.ones(3))
    assert torch.equal(windows[1], grid[0, :2, 2:])
