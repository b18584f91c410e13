"""The parts that make `tiny` of OVSAM's modules: necks, prompt maps, mask decoder.

`tiny` has the paper's stages at a small size: a frozen trunk, a neck to one image embedding, SAM's
prompt encoder and two-way transformer, a hypernetwork over upscaled maps. Two things are added,
because it is trained on few samples: the hypernetwork also weighs fine trunk features (stride 4)
and simple maps of the prompt itself (an ellipse in the box, Gaussians around the points), so that
an untrained model already answers a box with its ellipse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.layers import LayerNorm2d, Mlp
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.prompt_encoder import PromptEmbeddings
from ovsam_cli.model.tiny_prompts import NUM_PROMPT_MAPS
from ovsam_cli.model.tiny_regions import TinyRegionHead
from ovsam_cli.model.two_way import TwoWayTransformer

# The untrained answer to a box: its ellipse, and nothing outside.
ELLIPSE_WEIGHTS = (4.0, 2.0, *[0.0] * (NUM_PROMPT_MAPS - 2))


class ContextBlock(nn.Module):
    """Depthwise 5x5, layer norm, two 1x1 convolutions, scaled residual: lets cells see around."""

    def __init__(self, embed_dim: int, *, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(embed_dim, embed_dim, 5, padding=2, groups=embed_dim)
        self.norm = LayerNorm2d(embed_dim)
        self.lin1 = nn.Conv2d(embed_dim, embed_dim * expansion, 1)
        self.lin2 = nn.Conv2d(embed_dim * expansion, embed_dim, 1)
        self.scale = nn.Parameter(torch.full((embed_dim, 1, 1), 0.1))

    def forward(self, maps: Tensor) -> Tensor:
        """(I, D, h, w) -> (I, D, h, w)."""
        hidden = F.relu(self.lin1(self.norm(self.depthwise(maps))))
        output: Tensor = maps + self.scale * self.lin2(hidden)
        return output


class TinyNeck(nn.Module):
    """Trunk maps of strides 4 to 32 -> one image embedding at stride 16.

    As in the SAM2CLIP neck every level becomes tokens of one grid by a biased projection, the
    levels are summed, and blocks mix them.

    Args:
        in_channels: of the trunk maps, finest first.
        embed_dim: D.
        num_blocks: context blocks.
    """

    def __init__(self, *, in_channels: Sequence[int], embed_dim: int, num_blocks: int) -> None:
        super().__init__()
        kernels = (4, 2, 1, 1)
        self.patch_embeds = nn.ModuleList(
            nn.Conv2d(channels, embed_dim, kernel, kernel)
            for channels, kernel in zip(in_channels, kernels, strict=True)
        )
        self.level_norms = nn.ModuleList(LayerNorm2d(embed_dim) for _ in kernels)
        self.blocks = nn.Sequential(*(ContextBlock(embed_dim) for _ in range(num_blocks)))
        self.norm = LayerNorm2d(embed_dim)

    def forward(self, trunk_maps: Sequence[Tensor]) -> Tensor:
        """Four maps (I, C_l, h_l, w_l), finest first -> (I, D, h, w) at the third map's size."""
        size = trunk_maps[2].shape[-2:]
        levels = []
        for embed, norm, maps in zip(self.patch_embeds, self.level_norms, trunk_maps, strict=True):
            level = norm(embed(maps))
            if level.shape[-2:] != size:
                level = F.interpolate(level, size, mode="bilinear", align_corners=False)
            levels.append(level)
        fused = torch.stack(levels).sum(dim=0)
        output: Tensor = self.norm(self.blocks(fused))
        return output


class FineNeck(nn.Module):
    """Trunk maps -> fine features at stride 4, read by the mask decoder.

    Args:
        in_channels: of the trunk maps, finest first.
        fine_dim: channels of the fine features.
    """

    def __init__(self, *, in_channels: Sequence[int], fine_dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(size, fine_dim, 1) for size in in_channels)
        self.mixes = nn.ModuleList(nn.Conv2d(fine_dim, fine_dim, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(LayerNorm2d(fine_dim) for _ in range(3))
        self.project = nn.Conv2d(fine_dim, fine_dim, 1)

    def forward(self, trunk_maps: Sequence[Tensor]) -> Tensor:
        """Four maps (I, C_l, h_l, w_l), finest first -> (I, fine_dim, h_0, w_0)."""
        levels = [conv(maps) for conv, maps in zip(self.laterals, trunk_maps, strict=True)]
        merged = levels[3]
        for level in (2, 1, 0):
            size = levels[level].shape[-2:]
            coarse = F.interpolate(merged, size, mode="bilinear", align_corners=False)
            merged = F.relu(self.norms[level](self.mixes[level](levels[level] + coarse)))
        output: Tensor = self.project(merged)
        return output


class TinyMaskDecoder(nn.Module):
    """Two-way transformer, upscaling with fine features, hypernetwork.

    The hypernetwork gives each prompt weights for three groups of maps: upscaled image keys of
    the prompt, fine features of the image, and the prompt maps.

    Args:
        embed_dim: D.
        fine_dim: channels of the fine features.
        upscaled_dim: channels of the upscaled keys.
        transformer: built.
        roi_conv: the recognition head, kept here as in the published layout.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        fine_dim: int,
        upscaled_dim: int,
        transformer: TwoWayTransformer,
        roi_conv: TinyRegionHead,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.label_token = nn.Embedding(1, embed_dim)
        self.mask_tokens = nn.Embedding(1, embed_dim)
        # Linear layers before a pixel shuffle: the same as 2x2 transposed convolutions, faster.
        self.expand_eighth = nn.Linear(embed_dim, 4 * 2 * upscaled_dim)
        self.norm_eighth = LayerNorm2d(2 * upscaled_dim)
        self.expand_fourth = nn.Conv2d(2 * upscaled_dim, 4 * upscaled_dim, 1)
        self.fine_skip = nn.Conv2d(fine_dim, upscaled_dim, 1)
        self.group_dims = (upscaled_dim, fine_dim, NUM_PROMPT_MAPS, 1)
        self.hypernetwork = Mlp(
            in_dim=embed_dim, hidden_dim=embed_dim, out_dim=sum(self.group_dims), num_layers=3
        )
        self.roi_conv = roi_conv
        self._start_as_ellipse()

    def add_prompt_weights(self, weights: Sequence[float]) -> None:
        """Add to the weight of each prompt map, for every prompt alike."""
        last = self.hypernetwork.layers[-1]
        assert isinstance(last, nn.Linear) and len(weights) == NUM_PROMPT_MAPS
        first_map = self.group_dims[0] + self.group_dims[1]
        with torch.no_grad():
            last.bias[first_map : first_map + NUM_PROMPT_MAPS] += torch.tensor(weights)

    def _start_as_ellipse(self) -> None:
        last = self.hypernetwork.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.add_prompt_weights(ELLIPSE_WEIGHTS)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        fine_features: Tensor | None = None,
    ) -> DecodedMasks:
        """Decode B prompts of I images.

        Args:
            image_embeddings: (I, D, h, w).
            image_pe: (1, D, h, w).
            prompt_embeddings: of B prompts, with their prompt maps as the prior.
            fine_features: (I, fine_dim, 4h, 4w).

        Returns:
            (B, 1, 8h, 8w) mask logits, padded model frame. Only the prompt maps are that fine:
            a box of 10 pixels is two cells at stride 4, too few for its ellipse.
        """
        index, prompt_maps = prompt_embeddings.image_index, prompt_embeddings.prior_mask_logits
        assert fine_features is not None and prompt_maps is not None  # `tiny` always has both
        tokens, token_mask = self._tokens(prompt_embeddings)
        source = image_embeddings[index] + prompt_embeddings.dense_prompt_embeddings
        tokens, keys = self.transformer(tokens, source, image_pe, token_mask)
        weights = self.hypernetwork(tokens[:, 1]).split(self.group_dims, dim=1)
        skips = self.fine_skip(fine_features)  # (I, C, 4h, 4w)
        upscaled = self._upscale(keys, source.shape[-2:], skips[index])  # (B, C, 4h, 4w)
        learned = _weigh(weights[0], upscaled) + _weigh_by_image(weights[1], fine_features, index)
        learned = (learned + weights[3][..., None])[:, None]  # (B, 1, 4h, 4w)
        # A point alone leaves much to the image, and photographs are noisier than scenes.
        smooth = F.avg_pool2d(learned, 3, 1, 1, count_include_pad=False)
        has_box = prompt_maps[:, 0].flatten(1).any(dim=1)[:, None, None, None]
        learned = torch.where(has_box, learned, (learned + smooth) / 2)
        size = prompt_maps.shape[-2:]
        learned = F.interpolate(learned, size, mode="bilinear", align_corners=False)
        return DecodedMasks(learned + _weigh(weights[2], prompt_maps)[:, None], None)

    def decode_all(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        fine_features: Tensor | None = None,
    ) -> DecodedMasks:
        """All masks of B prompts: the one of `forward`."""
        decoded: DecodedMasks = self(image_embeddings, image_pe, prompt_embeddings, fine_features)
        return decoded

    def _tokens(self, prompts: PromptEmbeddings) -> tuple[Tensor, Tensor | None]:
        """Label and mask token before the prompt's own: (B, 2 + T, D), and which are valid."""
        sparse, token_mask = prompts.sparse_prompt_embeddings, prompts.token_mask
        own = torch.cat([self.label_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
        return tokens, None if token_mask is None else F.pad(token_mask, (2, 0), value=True)

    def _upscale(self, keys: Tensor, grid_hw: Sequence[int], skips: Tensor) -> Tensor:
        """(B, h * w, D) keys and (B, C, 4h, 4w) skips -> (B, C, 4h, 4w)."""
        eighth = self.expand_eighth(keys).transpose(1, 2).unflatten(2, tuple(grid_hw))
        eighth = F.relu(self.norm_eighth(F.pixel_shuffle(eighth, 2)))  # (B, 2C, 2h, 2w)
        fourth: Tensor = self.expand_fourth(eighth)
        return F.relu(F.pixel_shuffle(fourth, 2) + skips)


def _weigh(weights: Tensor, maps: Tensor) -> Tensor:
    """(B, C) weights, (B, C, h, w) maps -> (B, h, w)."""
    return (weights[:, None] @ maps.flatten(2)).reshape(len(weights), *maps.shape[-2:])


def _weigh_by_image(weights: Tensor, maps: Tensor, image_index: Tensor) -> Tensor:
    """(B, C) weights, (I, C, h, w) maps of the prompts' images -> (B, h, w)."""
    if len(maps) == 1:
        return (weights @ maps[0].flatten(1)).reshape(len(weights), *maps.shape[-2:])
    return _weigh(weights, maps[image_index])
