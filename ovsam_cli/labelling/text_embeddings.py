"""Text embeddings of a vocabulary: built name by name, cached by name, saved and read back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from ovsam_cli.errors import VocabularyError
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.structures import FloatArray
from ovsam_cli.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovsam_cli.model.text_encoder import TextEncoder

FILE_FORMAT = "ovsam-text-embeddings-1"
ARRAY_KEY, ABOUT_KEY = "text_embeddings", "ovsam_text"
TEXTS_PER_PART = 4096  # encoded between two writes to the cache: about a minute on two cores
NORM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class TextEmbeddings:
    """One row of text embeddings a category.

    Attributes:
        array: (K, S, D) float32, L2-normalized; S names of one category, padded with the first.
        names: (K,) category names, as in the vocabulary.
        text_hash: hash of weights, names, synonyms and templates: equal hash, equal array.
        text_tower: as in `OVSAMConfig.text_tower`; empty for an official file, which does not say.
        weights_sha256: of the tower; empty for an official file.
        templates: the sentence patterns; empty for an official file.
    """

    array: FloatArray
    names: tuple[str, ...]
    text_hash: str
    text_tower: str = ""
    weights_sha256: str = ""
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or len(self.array) != len(self.names):
            raise ValueError(f"array {self.array.shape} for {len(self.names)} names")

    def check_fits(
        self, vocabulary: Vocabulary, *, text_tower: str, text_dim: int, where: str
    ) -> None:
        """Refuse embeddings of other names or of another tower.

        Args:
            vocabulary: the names wanted, in order.
            text_tower, text_dim: of the model that will use them.
            where: the file, for the message.

        Raises:
            VocabularyError: they do not fit.
        """
        again = f"make them again with: ovsam embed-vocab {vocabulary.name}"
        if self.names != vocabulary.names:
            raise VocabularyError(
                f"{where}: text embeddings of {_difference(self.names, vocabulary.names)}; {again}"
            )
        if self.array.shape[-1] != text_dim or self.text_tower not in {"", text_tower}:
            found = f"{self.array.shape[-1]} numbers of {self.text_tower or 'an unnamed tower'}"
            raise VocabularyError(
                f"{where}: {found} a name, but the model wants {text_dim} of {text_tower}; {again}"
            )

    def save(self, path: Path) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: the file cannot be written.
        """
        about = {
            "format": FILE_FORMAT,
            "names": self.names,
            "text_hash": self.text_hash,
            "text_tower": self.text_tower,
            "weights_sha256": self.weights_sha256,
            "templates": self.templates,
        }
        with write_whole_file(path) as file:
            # One entry only: safetensors writes several in random order, so that equal
            # embeddings would give unequal files.
            file.write(to_safetensors({ARRAY_KEY: self.array}, {ABOUT_KEY: json.dumps(about)}))


def build_text_embeddings(
    vocabulary: Vocabulary,
    encoder: TextEncoder,
    *,
    templates: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TextEmbeddings:
    """Encode what is not cached yet, and put all together.

    Args:
        vocabulary: K categories.
        encoder: the model's text tower.
        templates: sentence patterns with one `{}`; default: the ones the model was trained with.
        cache_dir: folder for the vectors of single names; None keeps none.
        on_progress: called with (names encoded, names to encode) after every part.

    Raises:
        VocabularyError: a template is not one, or a name cannot be encoded.
    """
    patterns = encoder.default_templates if templates is None else tuple(templates)
    check_templates(patterns, "templates")
    key = _hash([encoder.weights_sha256, *patterns])
    folder = None if cache_dir is None else cache_dir / "text" / key[:16]
    wanted = vocabulary.text_names
    vectors = {} if folder is None else _read_cache(folder, key, set(wanted))
    missing = [name for name in wanted if name not in vectors]
    step = max(1, TEXTS_PER_PART // len(patterns))
    for start in range(0, len(missing), step):
        part = missing[start : start + step]
        encoded = encoder.encode_names(part, patterns).detach().cpu().numpy().astype(np.float32)
        vectors.update(zip(part, encoded, strict=True))
        if folder is not None:
            _write_cache(folder, key, part, encoded)
        if on_progress is not None:
            on_progress(start + len(part), len(missing))
    return TextEmbeddings(
        array=_stacked([category.synonyms for category in vocabulary.categories], vectors),
        names=vocabulary.names,
        text_hash=_hash([key, *(name for c in vocabulary.categories for name in c.synonyms)]),
        text_tower=encoder.text_tower,
        weights_sha256=encoder.weights_sha256,
        templates=patterns,
    )


def read_text_embeddings(path: Path, vocabulary: Vocabulary) -> TextEmbeddings:
    """Read a file of `ovsam embed-vocab`, or an official `.pth` of class embeddings.

    An official file holds one (K, S, D) tensor without names, so its rows are taken to be those
    of `vocabulary`.

    Raises:
        VocabularyError: not such a file, or another number of categories.
    """
    if path.suffix.lower() in {".pth", ".pt"}:
        return _read_official(path, vocabulary)
    try:
        with safe_open(path, "numpy") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT_KEY, "{}"))
            if about.get("format") != FILE_FORMAT:
                raise VocabularyError(f"{path}: not written by: ovsam embed-vocab")
            return TextEmbeddings(
                array=file.get_tensor(ARRAY_KEY),
                names=tuple(about["names"]),
                text_hash=about["text_hash"],
                text_tower=about["text_tower"],
                weights_sha256=about["weights_sha256"],
                templates=tuple(about["templates"]),
            )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise VocabularyError(
            f"{path}: cannot be read as text embeddings ({error}); "
            f"make them again with: ovsam embed-vocab {vocabulary.name}"
        ) from error


def read_templates(path: Path) -> tuple[str, ...]:
    """Read sentence patterns, one a line, each with one `{}`; empty lines do not count.

    Raises:
        VocabularyError: unreadable, empty, or a line without `{}`.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VocabularyError(f"{path}: cannot be read as a UTF-8 text file: {error}") from error
    templates = tuple(line.strip() for line in lines if line.strip())
    check_templates(templates, str(path))
    return templates


def check_templates(templates: Sequence[str], where: str) -> None:
    """Every pattern has exactly one `{}`, and there is at least one pattern.

    Raises:
        VocabularyError: otherwise.
    """
    if not templates:
        raise VocabularyError(
            f"{where}: no template in it; give one a line, such as: a photo of a {{}}."
        )
    for template in templates:
        if template.count("{}") != 1:
            raise VocabularyError(
                f"{where}: template {template!r} has no {{}} for the name, or more than one"
            )


def _stacked(synonyms: Sequence[tuple[str, ...]], vectors: dict[str, FloatArray]) -> FloatArray:
    width = max(len(names) for names in synonyms)
    padded = [(*names, *[names[0]] * (width - len(names))) for names in synonyms]
    return np.stack([[vectors[name] for name in names] for names in padded]).astype(np.float32)


def _read_cache(folder: Path, key: str, wanted: set[str]) -> dict[str, FloatArray]:
    vectors: dict[str, FloatArray] = {}
    parts: list[Path] = []
    with contextlib.suppress(OSError):  # a folder that may not be read is no cache
        parts = sorted(folder.glob("*.safetensors"))
    for path in parts:
        # A damaged part costs the time to encode its names again, nothing else.
        with contextlib.suppress(OSError, SafetensorError, KeyError, ValueError):
            with safe_open(path, "numpy") as file:
                about = file.metadata()
                rows = {name: row for row, name in enumerate(json.loads(about["names"]))}
                found = wanted & rows.keys()
                if about["key"] == key and found:
                    array = file.get_tensor("vectors")
                    vectors.update({name: array[rows[name]] for name in found})
    return vectors


def _write_cache(folder: Path, key: str, names: Sequence[str], vectors: FloatArray) -> None:
    path = folder / f"{_hash(names)[:16]}.safetensors"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # two runs may encode one part
    # A cache that cannot be written must not stop a run.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        about = {"key": key, "names": json.dumps(list(names))}
        temporary.write_bytes(to_safetensors({"vectors": vectors}, about))
        os.replace(temporary, path)


def _read_official(path: Path, vocabulary: Vocabulary) -> TextEmbeddings:
    import pickle

    import torch

    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (
        *(OSError, EOFError, RuntimeError, pickle.UnpicklingError),
        *(KeyError, ValueError, AttributeError, TypeError, IndexError),  # from damaged pickles
    ) as error:
        raise VocabularyError(f"{path}: cannot be read as class embeddings: {error}") from error
    if not isinstance(content, torch.Tensor) or content.ndim != 3:
        raise VocabularyError(f"{path}: expected one (K, S, D) tensor of class embeddings")
    array = content.float().contiguous().numpy()
    if len(array) != len(vocabulary):
        raise VocabularyError(
            f"{path}: {len(array)} class embeddings, but vocabulary {vocabulary.name} has "
            f"{len(vocabulary)} categories; give the vocabulary they were made for"
        )
    if np.abs(np.linalg.norm(array, axis=-1) - 1).max() > NORM_TOLERANCE:
        raise VocabularyError(f"{path}: rows are not of length 1, so these are no embeddings")
    text_hash = hashlib.sha256(array.tobytes()).hexdigest()
    return TextEmbeddings(array=array, names=vocabulary.names, text_hash=text_hash)


def _difference(found: Sequence[str], wanted: Sequence[str]) -> str:
    if len(found) != len(wanted):
        return f"{len(found)} categories, but the vocabulary has {len(wanted)}"
    row = next(row for row, pair in enumerate(zip(found, wanted, strict=True)) if len({*pair}) > 1)
    return f"other names (category {row + 1} is {found[row]!r}, wanted {wanted[row]!r})"


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()
