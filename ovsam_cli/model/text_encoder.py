"""Names and sentence patterns to text embeddings: the CLIP text tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

PLAIN_TEMPLATES = ("{}",)
# The 14 patterns of ViLD and FC-CLIP in the order of the paper's code (spec 9).
_SIZES = ("small", "medium", "large")
VILD_TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)


def average_templates(
    encode_texts: Callable[[Sequence[str]], Tensor], names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Put every name into every pattern, encode, normalize, average, normalize.

    Args:
        encode_texts: texts -> (n, D).
        names: n names.
        templates: patterns with one `{}`.

    Returns:
        (n, D) float32, L2-normalized.
    """
    texts = [template.replace("{}", name) for name in names for template in templates]
    encoded = F.normalize(encode_texts(texts).float(), dim=-1)
    averaged = encoded.unflatten(0, (len(names), len(templates))).mean(dim=1)
    return F.normalize(averaged, dim=-1)
