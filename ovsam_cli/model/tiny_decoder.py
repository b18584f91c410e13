"""The mask decoder of `tiny`: SAM's two-way transformer, then a function of the place.

A mask is not a map that is scaled up but a function: what the image's fine features, the prompt's
keys, the prompt itself and the similarity to its seeds say about one place, weighed by the mask
token's hypernetwork. Training asks it for the few hundred places of its losses only, inference for
every cell of stride 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.layers import Mlp
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptEmbeddings
from ovsam_cli.model.tiny_field import TinyField, map_places
from ovsam_cli.model.tiny_prompts import (
    NUM_PROMPT_VALUES,
    cell_centers,
    describe_places,
)
from ovsam_cli.model.tiny_quality import estimate_iou
from ovsam_cli.model.tiny_regions import TinyRegionHead
from ovsam_cli.model.tiny_similarity import (
    NEAREST_BACKGROUND,
    NEAREST_FOREGROUND,
    NUM_SIMILARITIES,
    Likeness,
    Seeds,
    SeedSimilarity,
    compare,
)
from ovsam_cli.model.two_way import TwoWayTransformer

# The untrained answer to a box: its ellipse, and nothing outside.
ELLIPSE_WEIGHTS = (4.0, 2.0)
# The untrained say of what a place is most similar to.
SIMILARITY_WEIGHT = 10.0
NUM_VALUES = NUM_PROMPT_VALUES + NUM_SIMILARITIES


class TinyMaskDecoder(nn.Module):
    """Two-way transformer, mask tokens, hypernetwork, IoU head.

    Args:
        embed_dim: D.
        fine_dim: channels of the fine features.
        hidden_dim: channels of a place's hidden values.
        seed_dim: channels of the spaces in which places are compared with seeds.
        num_point_masks: masks of a lone point beside the single one.
        model_size: side of the model frame in pixels.
        transformer: built.
        roi_conv: the recognition head, kept here as in the published layout.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        fine_dim: int,
        hidden_dim: int,
        seed_dim: int,
        num_point_masks: int,
        model_size: int,
        transformer: TwoWayTransformer,
        roi_conv: TinyRegionHead,
    ) -> None:
        super().__init__()
        self.model_size, self.fine_dim = model_size, fine_dim
        self.transformer = transformer
        self.iou_token = nn.Embedding(1, embed_dim)
        self.mask_tokens = nn.Embedding(1 + num_point_masks, embed_dim)
        self.similarity = SeedSimilarity(fine_dim=fine_dim, embed_dim=embed_dim, seed_dim=seed_dim)
        self.dense1 = nn.Linear(NUM_VALUES, embed_dim // 2)
        self.dense2 = nn.Linear(embed_dim // 2, embed_dim)
        self.key = nn.Linear(embed_dim, hidden_dim)
        self.fine_skip = nn.Conv2d(fine_dim, hidden_dim, 1)
        self.read_values = nn.Linear(NUM_VALUES, hidden_dim)
        self.mix = nn.Linear(hidden_dim, hidden_dim)
        self.group_dims = (hidden_dim + fine_dim, NUM_VALUES, 1, len(ELLIPSE_WEIGHTS))
        self.hypernetwork = Mlp(
            in_dim=embed_dim, hidden_dim=embed_dim, out_dim=sum(self.group_dims), num_layers=3
        )
        self.iou_prediction_head = Mlp(
            in_dim=2 * embed_dim, hidden_dim=embed_dim, out_dim=1, num_layers=3
        )
        self.roi_conv = roi_conv
        # How far each mask trusts what was learned beside the prior; see `calibrate_boxes`.
        self.register_buffer("learned_gains", torch.ones(1 + num_point_masks))
        self.learned_gains: Tensor
        self._start_from_prior()

    def _start_from_prior(self) -> None:
        last = self.hypernetwork.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        similarities = self.group_dims[0] + NUM_PROMPT_VALUES
        with torch.no_grad():
            last.bias[-len(ELLIPSE_WEIGHTS) :] = torch.tensor(ELLIPSE_WEIGHTS)
            last.bias[similarities + NEAREST_FOREGROUND] = SIMILARITY_WEIGHT
            last.bias[similarities + NEAREST_BACKGROUND] = -SIMILARITY_WEIGHT

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        fine_features: Tensor | None = None,
    ) -> DecodedMasks:
        """Decode B prompts of I images to one mask each.

        Args:
            image_embeddings: (I, D, h, w).
            image_pe: (1, D, h, w).
            prompt_embeddings: of B prompts.
            fine_features: (I, fine_dim + C, 4h, 4w) of `FineNeck`.

        Returns:
            (B, 1, 8h, 8w) mask logits, padded model frame, and the IoU to expect of them, which
            is told from the logits and not asked of the IoU head (see `tiny_quality`); of the
            masks of a lone point the surest, of that what is connected with the point.
        """
        field = self.decode_field(image_embeddings, image_pe, prompt_embeddings, fine_features)
        mask_logits = field.draw_best()
        is_lone_point = prompt_embeddings.prompts.is_lone_point
        return DecodedMasks(mask_logits, estimate_iou(mask_logits, is_lone_point))

    def decode_field(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        fine_features: Tensor | None = None,
    ) -> TinyField:
        """All masks of B prompts as functions of the place; arguments as of `forward`."""
        assert fine_features is not None  # `tiny` always has them
        prompts, similarity = prompt_embeddings.prompts, self.similarity
        fine, trunk_map = fine_features.tensor_split([self.fine_dim], dim=1)
        likeness = similarity.project(fine, image_embeddings, trunk_map)
        seeds = similarity.read_seeds(likeness, prompts, self.model_size)
        source = image_embeddings[prompts.image_index] + prompt_embeddings.dense_prompt_embeddings
        source = source + self._embed_cells(prompts, likeness, seeds, source.shape[-1])
        tokens, token_mask = self._tokens(prompt_embeddings, similarity.embed_seeds(seeds))
        tokens, keys = self.transformer(tokens, source, image_pe, token_mask)
        own = tokens[:, 1 : 1 + self.mask_tokens.num_embeddings]  # (B, M, D)
        return TinyField(
            model_size=self.model_size,
            read_values=self.read_values,
            mix=self.mix,
            prompts=prompts,
            likeness=likeness,
            seeds=seeds,
            fine=torch.cat([self.fine_skip(fine), fine], dim=1),
            keys=self.key(keys).transpose(1, 2).reshape(len(keys), -1, *source.shape[-2:]),
            weights=self._weights(own),
            iou_predictions=self._predict_ious(tokens[:, :1], own),
        )

    def calibrate_boxes(self, *, gain: float, outside: float) -> None:
        """Shift a box's trust from what was learned to the box itself, once, after training.

        Training pictures are no photographs: on those the learned maps are less right than they
        are sure. The values are chosen on photographs that are no training data.

        Args:
            gain: factor on what the single mask makes of the image's features.
            outside: added to the weight of the distance outside the box.
        """
        last = self.hypernetwork.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            self.learned_gains[0] = gain
            last.bias[-1] += outside

    def _weights(self, mask_tokens: Tensor) -> tuple[Tensor, ...]:
        """(B, M, D) -> the hypernetwork's groups, (B, M, C) each."""
        groups = torch.split(self.hypernetwork(mask_tokens), list(self.group_dims), dim=2)
        gains = self.learned_gains[:, None]
        return (gains * groups[0], *groups[1:])

    def _embed_cells(
        self, prompts: ModelPrompts, likeness: Likeness, seeds: Seeds, side: int
    ) -> Tensor:
        """(B, D, h, w): what prompt and seeds say about the cells of the image embedding."""
        index = prompts.image_index
        cells = cell_centers(side, self.model_size, index.device).expand(len(index), -1, -1)
        learned, trunk = likeness.split_fine(F.adaptive_avg_pool2d(likeness.fine, side).flatten(2))
        values = compare(seeds, (learned[index], likeness.coarse.flatten(2)[index], trunk[index]))
        said = describe_places(prompts, cells, self.model_size)
        hidden = F.relu(map_places(self.dense1, torch.cat([said, values], dim=1)))
        return map_places(self.dense2, hidden).view(len(index), -1, side, side)

    def _tokens(
        self, prompt_embeddings: PromptEmbeddings, seed_token: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """IoU token, mask tokens, seed token, the prompt's own (B, T, D); which are valid."""
        sparse, token_mask = (
            prompt_embeddings.sparse_prompt_embeddings,
            prompt_embeddings.token_mask,
        )
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), seed_token, sparse], dim=1)
        if token_mask is not None:
            token_mask = F.pad(token_mask, (len(own) + 1, 0), value=True)
        return tokens, token_mask

    def _predict_ious(self, iou_token: Tensor, mask_tokens: Tensor) -> Tensor:
        """(B, 1, D), (B, M, D) -> (B, M) in [0, 1]."""
        both = torch.cat([mask_tokens, iou_token.expand_as(mask_tokens)], dim=2)
        predicted: Tensor = self.iou_prediction_head(both)[..., 0].sigmoid()
        return predicted
