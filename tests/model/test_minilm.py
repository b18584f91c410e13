"""Shipped name vectors, and MiniLM against recorded outputs of another implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ovsam_cli.errors import CheckpointError, VocabularyError
from ovsam_cli.model import minilm
from ovsam_cli.model.known_files import checksum_path
from ovsam_cli.model.minilm import (
    NAME_VECTORS_PATH,
    MiniLmTextEncoder,
    NameVectors,
    find_minilm,
    read_name_vectors,
)
from ovsam_cli.model.text_encoder import PLAIN_TEMPLATES
from ovsam_cli.vocabulary import read_vocabulary

GOLDEN = Path(__file__).parents[1] / "golden" / "minilm_reference.npz"
needs_minilm = pytest.mark.skipif(find_minilm() is None, reason="extra tiny-text not installed")


@pytest.fixture(scope="module")
def name_vectors() -> NameVectors:
    return read_name_vectors()


@pytest.fixture
def encoder(name_vectors: NameVectors) -> MiniLmTextEncoder:
    return MiniLmTextEncoder(name_vectors=name_vectors, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "name", ["coco", "lvis", "imagenet1k", "objects365", "openimages", "ade20k", "voc", "demo"]
)
def test_every_small_vocabulary_has_shipped_vectors(name: str, name_vectors: NameVectors) -> None:
    for category in read_vocabulary(name).categories:
        for text in (category.name, *category.synonyms):
            assert name_vectors.find(text) is not None, text


def test_vectors_are_centered_unit_vectors(name_vectors: NameVectors) -> None:
    np.testing.assert_allclose(np.linalg.norm(name_vectors.vectors, axis=1), 1, atol=1e-5)
    rows = np.random.default_rng(0).permutation(len(name_vectors.vectors))[:300]
    similarity = name_vectors.vectors[rows] @ name_vectors.vectors[rows].T
    assert abs(similarity[~np.eye(300, dtype=bool)].mean()) < 0.02


def test_spelling_does_not_matter(name_vectors: NameVectors) -> None:
    plain, other = name_vectors.find("traffic light"), name_vectors.find(" Traffic_Light")
    assert plain is not None and other is not None
    assert np.array_equal(plain, other)
    assert name_vectors.find("nothing of the kind") is None


def test_related_names_are_near(encoder: MiniLmTextEncoder) -> None:
    cat, dog, bus = encoder.encode_names(["cat", "dog", "bus"], PLAIN_TEMPLATES)
    assert cat @ dog > 0.3 > cat @ bus


def test_missing_names_are_listed_with_the_remedy(
    encoder: MiniLmTextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "find_minilm", lambda: None)
    names = ["cat", *(f"gizmo {number}" for number in range(7))]
    with pytest.raises(VocabularyError) as caught:
        encoder.encode_names(names, PLAIN_TEMPLATES)
    assert "'gizmo 0'" in str(caught.value) and "'gizmo 4' and 2 more" in str(caught.value)
    assert "pip install 'ovsam-cli[tiny-text]'" in str(caught.value)
    assert encoder.encode_names(["cat"], PLAIN_TEMPLATES).shape == (1, 384)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"x\.safetensors: the shipped name vectors"):
        read_name_vectors(tmp_path / "x.safetensors")


def test_damaged_shipped_vectors(tmp_path: Path) -> None:
    content = bytearray(NAME_VECTORS_PATH.read_bytes())
    content[-1] ^= 1
    damaged = tmp_path / NAME_VECTORS_PATH.name
    damaged.write_bytes(content)
    checksum_path(damaged).write_text(checksum_path(NAME_VECTORS_PATH).read_text())
    with pytest.raises(CheckpointError, match="the file is damaged or another one"):
        read_name_vectors(damaged)


@needs_minilm
def test_minilm_equals_the_recorded_vectors() -> None:
    """Recorded with transformers' BertModel, mean over all tokens, L2-normalized."""
    golden = np.load(GOLDEN)
    folder = find_minilm()
    assert folder is not None
    vectors = minilm.load_minilm(folder).encode_texts(golden["names"].tolist()).numpy()
    np.testing.assert_allclose(vectors, golden["vectors"], rtol=1e-4, atol=1e-5)


@needs_minilm
def test_live_vectors_equal_shipped_ones(name_vectors: NameVectors) -> None:
    """A name gets (but for half precision) the same vector whether it was shipped or not."""
    names = ["zebra", "traffic light", "tape (sticky cloth or paper)"]
    nothing = NameVectors({}, name_vectors.vectors[:0], name_vectors.center,
                          name_vectors.weights_sha256)  # fmt: skip
    live = MiniLmTextEncoder(name_vectors=nothing, device=torch.device("cpu"))
    shipped = np.stack([name_vectors.find(name) for name in names])
    encoded = live.encode_names(names, PLAIN_TEMPLATES).numpy()
    np.testing.assert_allclose(encoded, shipped, atol=1e-3)


@needs_minilm
def test_other_weights_than_the_shipped_vectors_are_refused() -> None:
    folder = find_minilm()
    assert folder is not None
    with pytest.raises(VocabularyError, match="force-reinstall"):
        minilm.load_minilm(folder, "0" * 64)
