"""Deterministic pseudo-random weights: each value depends only on its canonical key.

The recorded outputs in `parity.npz` were made with these weights; see README.md beside this file.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

HALF_ULP_CENTER = 8388607.5
HALF_RANGE = 8388608.0
EMBEDDING_SUFFIXES = (
    "not_a_point_embed.weight",
    "no_mask_embed.weight",
    "level_encoding.weight",
    "label_token.weight",
    "mask_tokens.weight",
    "iou_token.weight",
)
BY_LAST_PART = {
    "running_mean": (0.0, 0.1),
    "running_var": (1.0, 0.1),
    "positional_encoding_gaussian_matrix": (0.0, 1.0),
    "rel_pos_h": (0.0, 0.1),
    "rel_pos_w": (0.0, 0.1),
    "pos_embed": (0.0, 0.2),
    "positional_embedding": (0.0, 0.1),
    "logit_scale": (4.6052, 0.0),
}


def uniform_for(key: str, count: int) -> NDArray[np.float64]:
    """`count` numbers in (-1, 1) that depend on the key alone."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(count)
    return ((raw >> np.uint64(40)).astype(np.float64) - HALF_ULP_CENTER) / HALF_RANGE


def offset_and_scale(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """The first rule that fits the key."""
    last = key.rpartition(".")[2]
    if last in BY_LAST_PART:
        return BY_LAST_PART[last]
    if last == "text_projection":
        return 0.0, 1 / math.sqrt(shape[0])
    if "point_embeddings." in key or key.endswith(EMBEDDING_SUFFIXES):
        return 0.0, 0.5
    if key.endswith("token_embedding.weight"):
        return 0.0, 0.3
    if last.endswith("bias"):
        return 0.0, 0.05
    if len(shape) == 1:
        return (0.35, 0.035) if ".bn3." in key else (1.0, 0.1)
    gain = math.sqrt(2) if key.startswith("backbone.") and len(shape) == 4 else 1.0
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))


def tensor_for(
    key: str, shape: tuple[int, ...], dtype: str = "float32"
) -> NDArray[np.float32] | NDArray[np.int64]:
    """The array of one canonical key; counters (int64) are zero."""
    if dtype == "int64":
        return np.zeros(shape, np.int64)
    offset, scale = offset_and_scale(key, shape)
    unit_variance = uniform_for(key, math.prod(shape)) * math.sqrt(3)
    values = (offset + scale * unit_variance).astype(np.float32).reshape(shape)
    if key.startswith(("backbone.", "clip_text.")):
        # CLIP's own archive holds half-precision values.
        values = values.astype(np.float16).astype(np.float32)
    return values


def class_embeddings() -> NDArray[np.float32]:
    """(50, 3, 768) unit rows; a class c has 1 + c % 3 prototypes of its own."""
    shape = (50, 3, 768)
    values = (uniform_for("class_embedding.parity50", math.prod(shape)) * math.sqrt(3)).reshape(
        shape
    )
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    for number, prototypes in enumerate(values):
        prototypes[1 + number % 3 :] = prototypes[0]
    return values.astype(np.float32)


def sample(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The 256 values of a large array that were recorded, or all of a small one."""
    flat = array.reshape(-1)
    if flat.size <= 256:
        return flat
    steps = np.arange(256)
    return flat[(steps * flat.size // 256 + 7919 * steps) % flat.size]
