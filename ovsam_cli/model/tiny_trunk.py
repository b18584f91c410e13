"""The image trunk of `tiny`: EfficientNet-Lite0 with batch norms folded into the convolutions.

Architecture and weights: EfficientNet-Lite0 (Apache-2.0). Input mean .5, deviation .5, TensorFlow's
"SAME" padding, batch-norm epsilon 1e-3. Strides 4, 8, 16 and 32 have 24, 40, 112 and 320 channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (kernel, stride, expansion, channels, repeats) of the seven stages.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STAGE_CHANNELS = (24, 40, 112, 320)
HEAD_CHANNELS = 1280
NUM_IMAGENET_CLASSES = 1000
_OUTPUT_STAGES = (1, 2, 4, 6)
_BATCH_NORM_EPS = 1e-3


class SameConv(nn.Conv2d):
    """A biased convolution padded as TensorFlow's "SAME": the odd pixel goes right and bottom."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride, padding, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        if self.stride[0] == 1:
            return super().forward(input)
        height, width = input.shape[-2:]
        rows, columns = (self._missing(size) for size in (height, width))
        padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return super().forward(F.pad(input, padding))

    def _missing(self, size: int) -> int:
        stride, kernel = self.stride[0], self.kernel_size[0]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; identity added where shapes agree."""

    def __init__(
        self, *, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = SameConv(in_channels, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = SameConv(hidden, out_channels, 1)
        self.has_identity = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        hidden = maps if self.expand is None else F.relu6(self.expand(maps), inplace=True)
        projected: Tensor = self.project(F.relu6(self.depthwise(hidden), inplace=True))
        return maps + projected if self.has_identity else projected


class LiteTrunk(nn.Module):
    """EfficientNet-Lite0 as a feature pyramid, with its ImageNet classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = 32
        for kernel, stride, expansion, width, repeats in STAGES:
            blocks = nn.Sequential()
            for block in range(repeats):
                blocks.append(
                    InvertedResidual(
                        in_channels=channels,
                        out_channels=width,
                        kernel=kernel,
                        stride=stride if block == 0 else 1,
                        expansion=expansion,
                    )
                )
                channels = width
            self.stages.append(blocks)
        self.head = SameConv(channels, HEAD_CHANNELS, 1)
        self.classifier = nn.Linear(HEAD_CHANNELS, NUM_IMAGENET_CLASSES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode images.

        Args:
            pixels: (I, 3, S, S) float, padded model frame, normalized by mean .5 and deviation .5.

        Returns:
            Maps of strides 4, 8, 16 and 32 with 24, 40, 112 and 320 channels.
        """
        stem = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        maps = F.relu6(stem, inplace=True)
        kept = []
        for index, stage in enumerate(self.stages):
            maps = stage(maps)
            if index in _OUTPUT_STAGES:
                kept.append(maps)
        fourth, eighth, sixteenth, last = kept
        return fourth, eighth, sixteenth, last

    def imagenet_logits(self, last_map: Tensor) -> Tensor:
        """(I, 320, h, w) last map -> (I, 1000) logits of the ImageNet classes."""
        pooled = F.relu6(self.head(last_map)).mean(dim=(-2, -1))  # (I, 1280)
        logits: Tensor = self.classifier(pooled)
        return logits


def fold_lite0_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published EfficientNet-Lite0 state dict as that of `LiteTrunk`.

    Args:
        weights: keys `_conv_stem`, `_bn0`, `_blocks.N._expand_conv`, ..., `_fc`.

    Returns:
        State dict of `LiteTrunk`, float32, batch norms folded in.
    """
    folded = _fold(weights, "_conv_stem", "_bn0", "stem")
    folded |= _fold(weights, "_conv_head", "_bn1", "head")
    middle = (("_depthwise_conv", "_bn1", "depthwise"), ("_project_conv", "_bn2", "project"))
    number = 0
    for stage, (_, _, expansion, _, repeats) in enumerate(STAGES):
        for block in range(repeats):
            source, target = f"_blocks.{number}", f"stages.{stage}.{block}"
            first = (("_expand_conv", "_bn0", "expand"),) if expansion > 1 else ()
            for conv, norm, name in (*first, *middle):
                folded |= _fold(weights, f"{source}.{conv}", f"{source}.{norm}", f"{target}.{name}")
            number += 1
    folded["classifier.weight"] = weights["_fc.weight"].float()
    folded["classifier.bias"] = weights["_fc.bias"].float()
    return folded


def _fold(weights: Mapping[str, Tensor], conv: str, norm: str, target: str) -> dict[str, Tensor]:
    deviation = (weights[f"{norm}.running_var"] + _BATCH_NORM_EPS).sqrt()
    scale = weights[f"{norm}.weight"] / deviation
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return {
        f"{target}.weight": weights[f"{conv}.weight"] * scale[:, None, None, None],
        f"{target}.bias": bias,
    }
