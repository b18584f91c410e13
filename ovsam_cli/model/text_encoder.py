"""Names and sentence patterns to text embeddings: the CLIP text tower."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovsam_cli.errors import CheckpointError, VocabularyError

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
_TEXT_PREFIXES = ("transformer.", "token_embedding.", "ln_final.")
_TEXT_KEYS = ("positional_embedding", "text_projection")
CHANNELS_PER_HEAD = 64


class TextEncoder(Protocol):
    """Anything that turns names into text embeddings.

    Attributes:
        text_tower: which tower it is, as in `OVSAMConfig.text_tower`.
        weights_sha256: hash of all weights that take part.
        default_templates: the patterns the model was trained with.
    """

    text_tower: str
    weights_sha256: str
    default_templates: tuple[str, ...]

    def encode_names(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """n names in every pattern -> (n, D) float32, L2-normalized mean over the patterns."""
        ...


def imagenet_templates() -> tuple[str, ...]:
    """The 80 patterns of CLIP's ImageNet evaluation."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


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
    averaged = encoded.reshape(len(names), len(templates), -1).mean(dim=1)
    return F.normalize(averaged, dim=-1)


class ClipTextEncoder(nn.Module):
    """CLIP's text transformer with OpenAI's key names (spec 9).

    Causal attention, QuickGELU, the feature at the end-of-text token times `text_projection`.
    Prompts are encoded at the length of the longest one, not at the full context of 77: tokens
    after the end of a text cannot reach it through causal attention.
    """

    text_tower = "clip-rn50x16"
    default_templates: tuple[str, ...] = VILD_TEMPLATES

    def __init__(
        self,
        *,
        embed_dim: int = 768,
        text_dim: int = 768,
        depth: int = 12,
        context_length: int = 77,
        num_tokens: int = 49408,
    ) -> None:
        super().__init__()
        self.weights_sha256 = ""
        self.token_embedding = nn.Embedding(num_tokens, embed_dim)
        self.positional_embedding = nn.Parameter(torch.zeros(context_length, embed_dim))
        self.transformer = TextTransformer(embed_dim=embed_dim, depth=depth)
        self.ln_final = nn.LayerNorm(embed_dim)
        self.text_projection = nn.Parameter(torch.zeros(embed_dim, text_dim))

    def forward(self, token_ids: Tensor) -> Tensor:
        """(n, L) int64 token ids, zeros after the end-of-text token -> (n, D), not normalized."""
        ends = token_ids.argmax(dim=-1)  # end-of-text has the largest id
        token_ids = token_ids[:, : int(ends.max()) + 1]
        tokens = self.token_embedding(token_ids)  # n x L x C
        tokens = self.transformer(tokens + self.positional_embedding[: token_ids.shape[1]])
        rows = torch.arange(len(tokens), device=tokens.device)
        features: Tensor = self.ln_final(tokens[rows, ends]) @ self.text_projection
        return features

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (n, 77) int64 CLIP token ids on the tower's device.

        Raises:
            VocabularyError: a text is longer than the context; CLIP would cut it silently.
        """
        from open_clip.tokenizer import SimpleTokenizer

        tokenizer = SimpleTokenizer()
        length = self.positional_embedding.shape[0]
        token_ids = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
            if len(ids) > length:
                raise VocabularyError(
                    f"{text!r:.80}: {len(ids)} tokens, but the text tower reads at most {length}; "
                    "use a shorter name"
                )
            token_ids[row, : len(ids)] = torch.tensor(ids)
        return token_ids.to(self.positional_embedding.device)

    def encode_texts(self, texts: Sequence[str], texts_per_batch: int = 256) -> Tensor:
        """(n, D) not normalized; texts of similar length go together to save padding."""
        token_ids = self.tokenize(texts)
        order = token_ids.argmax(dim=-1).argsort(stable=True)
        encoded = torch.empty(
            len(texts), self.text_projection.shape[1], device=self.text_projection.device
        )
        for start in range(0, len(texts), texts_per_batch):
            rows = order[start : start + texts_per_batch]
            encoded[rows] = self(token_ids[rows]).float()
        return encoded

    def encode_names(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """n names in every pattern -> (n, D) float32, L2-normalized mean over the patterns."""
        return average_templates(self.encode_texts, names, templates)


class TextTransformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, *, embed_dim: int, depth: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(embed_dim=embed_dim) for _ in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, L, C) -> (n, L, C)."""
        for block in self.resblocks:
            tokens = block(tokens)
        return tokens


class TextBlock(nn.Module):
    """Pre-norm transformer block with causal self-attention."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim)
        self.attn = TextAttention(embed_dim=embed_dim)
        self.ln_2 = nn.LayerNorm(embed_dim)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(embed_dim, 4 * embed_dim),
                "c_proj": nn.Linear(4 * embed_dim, embed_dim),
            }
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, L, C) -> (n, L, C)."""
        tokens = tokens + self.attn(self.ln_1(tokens))
        hidden = self.mlp["c_fc"](self.ln_2(tokens))
        hidden = hidden * torch.sigmoid(1.702 * hidden)  # QuickGELU: not the exact GELU
        mixed: Tensor = tokens + self.mlp["c_proj"](hidden)
        return mixed


class TextAttention(nn.Module):
    """Causal self-attention, keys as in `nn.MultiheadAttention`."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, L, C) -> (n, L, C)."""
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (
            part.reshape(*part.shape[:2], -1, CHANNELS_PER_HEAD).transpose(1, 2)
            for part in projected.chunk(3, dim=-1)
        )  # n x N_heads x L x C_per_head
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return joined


def build_clip_text_encoder(
    state_dict: Mapping[str, Tensor], *, source: str, device: torch.device
) -> ClipTextEncoder:
    """Make a text tower of the size of its weights.

    Args:
        state_dict: a whole CLIP model or its text part, OpenAI's key names.
        source: where the weights come from, for messages.
        device: where the tower shall run.

    Raises:
        CheckpointError: text keys are missing.
    """
    weights = {
        key: tensor.float()
        for key, tensor in state_dict.items()
        if key.startswith(_TEXT_PREFIXES) or key in _TEXT_KEYS
    }
    if not set(_TEXT_KEYS) <= weights.keys():
        raise CheckpointError(
            f"{source}: no CLIP text tower in it (no {' or '.join(_TEXT_KEYS)}); "
            "give OpenAI's RN50x16.pt or its safetensors form"
        )
    context_length, embed_dim = weights["positional_embedding"].shape
    encoder = ClipTextEncoder(
        embed_dim=embed_dim,
        text_dim=weights["text_projection"].shape[1],
        depth=sum(key.endswith(".ln_1.weight") for key in weights),
        context_length=context_length,
        num_tokens=len(weights["token_embedding.weight"]),
    )
    missing = encoder.state_dict().keys() - weights.keys()
    if missing:
        raise CheckpointError(f"{source}: the text tower lacks {sorted(missing)[:3]}")
    encoder.load_state_dict(weights)
    digest = hashlib.sha256()
    for key in sorted(weights):  # of values, so that every file format gives the same hash
        digest.update(key.encode() + weights[key].contiguous().numpy().tobytes())
    encoder.weights_sha256 = digest.hexdigest()
    return encoder.requires_grad_(False).eval().to(device)
