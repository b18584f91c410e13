"""Sizes and constants of a model, and those of the published one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Literal

TrunkName = Literal["clip-resnet", "efficientnet-lite0"]
TextTowerName = Literal["clip-rn50x16", "minilm-l6"]


@dataclass(frozen=True, slots=True)
class OVSAMConfig:
    """Sizes and constants of a model; saved in the checkpoint beside the weights.

    Attributes:
        name: what the user calls it.
        trunk: which image trunk (and neck) the builder makes.
        model_size: side of the square model frame in pixels.
        pixel_mean, pixel_std: of RGB values 0..255; subtracted, divided by.
        resize: how `images.preprocess` scales to the model size.
        embed_dim, grid_size: D and side of an image embedding.
        decoder_depth, decoder_heads, decoder_mlp_dim: of the two-way transformer.
        iou_head: whether the decoder predicts each mask's IoU; the published weights do not.
        num_point_masks: 0, or the number of masks that a lone point has to choose from beside
            the single one (3 in SAM); needs `iou_head`.
        text_dim, text_tower: size of a class embedding and the tower that makes it.
        fpn_channels, fpn_strides: of the trunk's four maps, finest first.
        fpn_dim, fpn_finest_scale: of the FPN, and the box side its finest level suits.
        head_roi_size, clip_roi_size: cells a side of a pooled region, head and CLIP branch.
        logit_scale: log of the factor on cosine similarities.
        stability_offset: logits by which a mask is cut higher and lower for its stability.
        grid_min_stability, grid_min_iou: lowest stability and predicted IoU that the automatic mode
            keeps unless told otherwise; SAM's generator has 0.95 and 0.88.
        alpha, beta: CLIP's share for base categories and for the others.
        trained_on: names, or vocabularies such as `lvis:base`, that the head saw in training.
        trunk_layers, trunk_width, trunk_heads, trunk_image_size: of the CLIP trunk.
        neck_dim, neck_depth, neck_heads, neck_window: of the SAM2CLIP neck.
    """

    name: str
    trunk: TrunkName = "clip-resnet"
    model_size: int = 1024
    pixel_mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, ...] = (58.395, 57.12, 57.375)
    resize: str = "cv2_bilinear"
    embed_dim: int = 256
    grid_size: int = 64
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head: bool = False
    num_point_masks: int = 0
    text_dim: int = 768
    text_tower: TextTowerName = "clip-rn50x16"
    fpn_channels: tuple[int, ...] = (384, 768, 1536, 3072)
    fpn_strides: tuple[int, ...] = (4, 8, 16, 32)
    fpn_dim: int = 256
    fpn_finest_scale: float = 56.0
    head_roi_size: int = 12
    clip_roi_size: int = 12
    logit_scale: float = 4.6052
    stability_offset: float = 1.0
    grid_min_stability: float = 0.9
    grid_min_iou: float = 0.88
    alpha: float = 0.1
    beta: float = 0.9
    trained_on: tuple[str, ...] = ()
    trunk_layers: tuple[int, ...] = (6, 8, 18, 8)
    trunk_width: int = 96
    trunk_heads: int = 48
    trunk_image_size: int = 384
    neck_dim: int = 1280
    neck_depth: int = 5
    neck_heads: int = 16
    neck_window: int = 14

    def to_json(self) -> str:
        """One line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> OVSAMConfig:
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, not an object, or a field this version does not know.
        """
        values = json.loads(text, object_hook=_freeze)
        if not isinstance(values, dict):
            raise ValueError(f"a model config is a JSON object, not {type(values).__name__}")
        unknown = sorted(values.keys() - {field.name for field in fields(OVSAMConfig)})
        if unknown or "name" not in values:
            raise ValueError(f"model config: unknown fields {unknown} or no name")
        config = OVSAMConfig(**values)
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError for a type unlike the published preset's, or sizes that do not fit."""
        reference = OVSAMConfig(name="")
        for field in fields(self):
            value, wanted = getattr(self, field.name), type(getattr(reference, field.name))
            if not isinstance(value, (float, int) if wanted is float else wanted):
                raise ValueError(f"model config: {field.name} ({value!r}) is no {wanted.__name__}")
        if self.num_point_masks < 0 or (self.num_point_masks and not self.iou_head):
            raise ValueError(
                f"model config: num_point_masks ({self.num_point_masks}) must be 0, or more with "
                "iou_head, which chooses among them"
            )


def _freeze(values: dict[str, object]) -> dict[str, object]:
    """JSON's lists as tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


PRESETS: dict[str, OVSAMConfig] = {
    "rn50x16": OVSAMConfig(name="rn50x16", trained_on=("lvis:base",)),
}
