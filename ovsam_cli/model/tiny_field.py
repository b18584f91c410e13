"""The masks of `tiny` as functions of the place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.layers import full_precision, in_full
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.model.tiny_parts import keep_parts_of_points
from ovsam_cli.model.tiny_prompts import cell_centers, describe_box, describe_places
from ovsam_cli.model.tiny_quality import choose_surest
from ovsam_cli.model.tiny_similarity import (
    Likeness,
    Seeds,
    compare,
    sample_image_maps,
    sample_own_maps,
)

PROMPTS_AT_ONCE = 8  # whose every cell is worked out together


@dataclass(frozen=True, slots=True)
class PlaceValues:
    """What an image has at N places: (B, C, N) tensors, or (C, N) for places all prompts share.

    Attributes:
        fine: (hidden + fine_dim) channels: those added to the hidden values, the features.
        learned, coarse, trunk: unit vectors of the three levels of likeness.
    """

    fine: Tensor
    learned: Tensor
    coarse: Tensor
    trunk: Tensor


@dataclass(frozen=True, slots=True)
class TinyField:
    """The masks of B prompts as functions of the place.

    Attributes:
        model_size: side of the model frame in pixels.
        read_values, mix: layers on a place's values, of the decoder.
        prompts: B prompts.
        likeness: unit vectors of the images' places.
        seeds: of the prompts.
        fine: (I, hidden + fine_dim, 4h, 4w) of the images.
        keys: (B, hidden, h, w) of the prompts.
        weights: four (B, M, C) groups of the hypernetwork.
        iou_predictions: (B, M) of the IoU head; `tiny_quality` says more of drawn masks.
    """

    model_size: int
    read_values: nn.Linear
    mix: nn.Linear
    prompts: ModelPrompts
    likeness: Likeness
    seeds: Seeds
    fine: Tensor
    keys: Tensor
    weights: tuple[Tensor, ...]
    iou_predictions: Tensor

    def sample(self, points: Tensor) -> Tensor:
        """(B, N, 2) points in [0, 1], x first -> (B, M, N) mask logits."""
        size = self.model_size
        places, index = points * size, self.prompts.image_index
        stride4 = torch.cat([self.fine, self.likeness.fine], dim=1)
        values = sample_image_maps(stride4, places, index, size)
        fine, unit = values.tensor_split([self.fine.shape[1]], dim=1)
        learned, trunk = self.likeness.split_fine(unit)
        coarse = sample_image_maps(self.likeness.coarse, places, index, size)
        keys = sample_own_maps(self.keys, places, size)
        said = describe_places(self.prompts, places, size)
        logits = self._weigh(said, PlaceValues(fine, learned, coarse, trunk), keys)
        return logits + weigh_in_full(self.weights[3], said[:, :2])

    def draw(self) -> Tensor:
        """(B, M, 8h, 8w) mask logits of every cell of stride 2."""
        return self._draw_parts(lambda few, logits: few._finish(logits), self.weights[0].shape[1])

    def draw_best(self) -> Tensor:
        """(B, 1, 8h, 8w): of a lone point the part around it of its surest mask."""
        return self._draw_parts(_finish_best, 1)

    def _draw_parts(self, finish: Callable[[TinyField, Tensor], Tensor], num_masks: int) -> Tensor:
        """Few prompts at a time: (B, num_masks, 8h, 8w) of what `finish` makes of theirs.

        Args:
            finish: few prompts and their (B, M, 16hw) logits, without prior -> logits of stride 2.
            num_masks: that it makes of each.
        """
        side = 2 * self.fine.shape[-1]
        drawn = [self.fine.new_zeros(0, num_masks, side, side)]
        order = [torch.zeros(0, dtype=torch.int64, device=self.fine.device)]
        for number in range(len(self.fine)):
            rows = self._find_rows(number)
            values = self._read_image(number)
            for part in torch.split(rows, PROMPTS_AT_ONCE):
                few = self._take(part)
                drawn.append(finish(few, few._weigh_cells(values)))
                order.append(part)
        return torch.cat(drawn)[torch.cat(order).argsort()]

    def _find_rows(self, number: int) -> Tensor:
        """(n,) int64 the prompts of an image; a device need not be asked for those of the only."""
        index = self.prompts.image_index
        if len(self.fine) == 1:
            return torch.arange(len(index), device=index.device)
        return (index == number).nonzero()[:, 0]

    def choose(self, chosen: Tensor) -> TinyField:
        """The field of one mask a prompt, (B,) int64."""
        columns = chosen[:, None]
        weights = tuple(
            group.gather(1, columns[..., None].expand(-1, -1, group.shape[2]))
            for group in self.weights
        )
        return replace(
            self, weights=weights, iou_predictions=self.iou_predictions.gather(1, columns)
        )

    def _take(self, rows: Tensor) -> TinyField:
        return replace(
            self,
            prompts=self.prompts.take(rows),
            seeds=self.seeds.take(rows),
            keys=self.keys[rows],
            weights=tuple(group[rows] for group in self.weights),
            iou_predictions=self.iou_predictions[rows],
        )

    def _read_image(self, number: int) -> PlaceValues:
        """What an image has at its cells of stride 4, once for all its prompts."""
        learned, trunk = self.likeness.split_fine(self.likeness.fine[number : number + 1])
        coarse = _enlarge(self.likeness.coarse[number : number + 1], self.fine.shape[-1])
        maps = (self.fine[number : number + 1], learned, coarse, trunk)
        fine, learned, coarse, trunk = (level[0].flatten(1) for level in maps)
        return PlaceValues(fine, learned, coarse, trunk)

    def _weigh_cells(self, values: PlaceValues) -> Tensor:
        """(B, M, 4h * 4w) logits, without the prior, of prompts of one image."""
        side, size, device = self.fine.shape[-1], self.model_size, self.keys.device
        said = describe_places(self.prompts, cell_centers(side, size, device)[None], size)
        return self._weigh(said, values, _enlarge(self.keys, side).flatten(2))

    def _finish(self, logits: Tensor) -> Tensor:
        """(B, M, 4h * 4w) logits -> (B, M, 8h, 8w) with the prior."""
        side = self.fine.shape[-1]
        drawn = _enlarge(logits.view(*logits.shape[:2], side, side), 2 * side)
        # The ellipse at stride 2: a box of 10 pixels is two cells at stride 4.
        places = cell_centers(2 * side, self.model_size, self.keys.device)[None]
        prior = weigh_in_full(self.weights[3], describe_box(self.prompts, places)[:, :2])
        return drawn + prior.view_as(drawn)

    def _weigh(self, said: Tensor, at: PlaceValues, keys: Tensor) -> Tensor:
        """(B, M, N) logits, without the prior, from what there is at N places.

        Args:
            said: (B, C, N) by the prompts.
            at: by the images.
            keys: (B, hidden, N) of the prompts.
        """
        mixed, valued, constant, _ = self.weights
        hidden_dim = self.mix.out_features
        values = torch.cat([said, compare(self.seeds, (at.learned, at.coarse, at.trunk))], dim=1)
        skip, features = at.fine.tensor_split([hidden_dim], dim=-2)
        hidden = F.relu(keys + skip + map_places(self.read_values, values))
        hidden = F.relu(map_places(self.mix, hidden))  # (B, hidden, N)
        of_hidden, of_features = mixed.tensor_split([hidden_dim], dim=2)
        logits = weigh_in_full(of_hidden, hidden) + weigh_in_full(of_features, features)
        return logits + weigh_in_full(valued, values) + in_full(constant)


def _finish_best(field: TinyField, logits: Tensor) -> Tensor:
    """One mask a prompt, made before it is enlarged; a lone point has no prior to wait for."""
    chosen, side = choose_surest(logits, field.prompts.is_lone_point), field.fine.shape[-1]
    own = logits[torch.arange(len(chosen), device=chosen.device), chosen].view(-1, side, side)
    own = keep_parts_of_points(own, field.prompts, field.model_size)
    return field.choose(chosen)._finish(own[:, None].flatten(2))


def weigh_in_full(weights: Tensor, values: Tensor) -> Tensor:
    """(B, M, C) weights of (B, C, N) or (C, N) values: (B, M, N) in float32 or better."""
    with full_precision(weights.device):
        return in_full(weights) @ in_full(values)


def map_places(layer: nn.Linear, values: Tensor) -> Tensor:
    """Apply a linear layer to the channels of (B, C, N)."""
    return layer.weight @ values + layer.bias[:, None]


def _enlarge(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
