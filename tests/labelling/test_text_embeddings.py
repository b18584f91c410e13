"""Text embeddings: order, padding, the cache by name, files of both kinds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from ovsam_cli.errors import VocabularyError
from ovsam_cli.labelling.text_embeddings import (
    TextEmbeddings,
    build_text_embeddings,
    read_templates,
    read_text_embeddings,
)
from ovsam_cli.model.hub import cache_folder
from ovsam_cli.vocabulary import Vocabulary, read_vocabulary


class FakeEncoder:
    """A vector that depends on name and templates; remembers what it was asked."""

    text_tower = "fake"
    default_templates: tuple[str, ...] = ("a {}",)

    def __init__(self, weights_sha256: str = "1" * 64) -> None:
        self.weights_sha256 = weights_sha256
        self.asked: list[str] = []

    def encode_names(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        self.asked += names
        seeds = [sum(f"{self.weights_sha256}{name}{templates}".encode()) for name in names]
        rows = [np.random.default_rng(seed).normal(size=8) for seed in seeds]
        array = torch.from_numpy(np.stack(rows)).float()
        return torch.nn.functional.normalize(array, dim=-1)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Vocabulary:
    path = tmp_path / "mine.txt"
    path.write_text("cat, kitty\ndog\nred panda, firefox, lesser panda\n")
    return read_vocabulary(str(path))


def test_rows_synonyms_and_padding(vocabulary: Vocabulary) -> None:
    embeddings = build_text_embeddings(vocabulary, FakeEncoder())
    assert embeddings.array.shape == (3, 3, 8)
    assert embeddings.array.dtype == np.float32
    assert embeddings.names == ("cat", "dog", "red panda")
    assert embeddings.templates == ("a {}",)
    alone = FakeEncoder().encode_names(["cat", "kitty", "dog"], ("a {}",)).numpy()
    np.testing.assert_array_equal(embeddings.array[0], alone[[0, 1, 0]])  # padded with the first
    np.testing.assert_array_equal(embeddings.array[1], alone[[2, 2, 2]])


def test_one_more_name_costs_one_name(vocabulary: Vocabulary, tmp_path: Path) -> None:
    first, second = FakeEncoder(), FakeEncoder()
    built = build_text_embeddings(vocabulary, first, cache_dir=tmp_path)
    assert first.asked == ["cat", "kitty", "dog", "red panda", "firefox", "lesser panda"]
    larger = read_vocabulary("dog, quokka, cat")
    again = build_text_embeddings(larger, second, cache_dir=tmp_path)
    assert second.asked == ["quokka"]
    np.testing.assert_array_equal(again.array[[0, 2], 0], built.array[[1, 0], 0])


def test_cache_knows_weights_and_templates(vocabulary: Vocabulary, tmp_path: Path) -> None:
    build_text_embeddings(vocabulary, FakeEncoder(), cache_dir=tmp_path)
    for encoder, templates in ((FakeEncoder("2" * 64), None), (FakeEncoder(), ("the {}",))):
        build_text_embeddings(vocabulary, encoder, templates=templates, cache_dir=tmp_path)
        assert len(encoder.asked) == 6


def test_damaged_or_unwritable_cache_costs_time_only(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    build_text_embeddings(vocabulary, FakeEncoder(), cache_dir=tmp_path)
    for path in tmp_path.glob("text/*/*.safetensors"):
        path.write_bytes(b"rubbish")
    encoder = FakeEncoder()
    build_text_embeddings(vocabulary, encoder, cache_dir=tmp_path)
    assert len(encoder.asked) == 6
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    build_text_embeddings(vocabulary, FakeEncoder(), cache_dir=blocked)


def test_progress_counts_names_to_encode(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    templates = [f"{number} {{}}" for number in range(2000)]
    build_text_embeddings(
        read_vocabulary("a, b, c, d, e"), FakeEncoder(), templates=templates,
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_hash_tells_results_apart(vocabulary: Vocabulary) -> None:
    hashes = {
        build_text_embeddings(vocabulary, FakeEncoder()).text_hash,
        build_text_embeddings(vocabulary, FakeEncoder("2" * 64)).text_hash,
        build_text_embeddings(vocabulary, FakeEncoder(), templates=("{}",)).text_hash,
        build_text_embeddings(read_vocabulary("cat, dog"), FakeEncoder()).text_hash,
    }
    assert len(hashes) == 4


def test_file_round_trip(vocabulary: Vocabulary, tmp_path: Path) -> None:
    built = build_text_embeddings(vocabulary, FakeEncoder())
    built.save(tmp_path / "e.safetensors")
    read = read_text_embeddings(tmp_path / "e.safetensors", vocabulary)
    np.testing.assert_array_equal(read.array, built.array)
    assert (read.names, read.text_hash, read.templates) == (
        built.names, built.text_hash, built.templates,
    )  # fmt: skip
    read.check_fits(vocabulary, text_tower="fake", text_dim=8, where="e")
    built.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "e.safetensors"
    ).read_bytes()


def test_foreign_safetensors_file(vocabulary: Vocabulary, tmp_path: Path) -> None:
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(VocabularyError, match="not written by: ovsam embed-vocab"):
        read_text_embeddings(tmp_path / "x.safetensors", vocabulary)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("cat, dog", "e: .* 3 categories, but the vocabulary has 2"),
        ("cat, dog, cow", "category 3 is 'red panda', wanted 'cow'"),
    ],
)
def test_embeddings_of_other_names_are_refused(
    other: str, message: str, vocabulary: Vocabulary
) -> None:
    built = build_text_embeddings(vocabulary, FakeEncoder())
    with pytest.raises(VocabularyError, match=message):
        built.check_fits(read_vocabulary(other), text_tower="fake", text_dim=8, where="e")


def test_embeddings_of_another_tower_are_refused(vocabulary: Vocabulary) -> None:
    built = build_text_embeddings(vocabulary, FakeEncoder())
    with pytest.raises(VocabularyError, match=r"e: 8 numbers of fake a name, .* wants 768 of clip"):
        built.check_fits(vocabulary, text_tower="clip", text_dim=768, where="e")


def test_official_file(vocabulary: Vocabulary, tmp_path: Path) -> None:
    array = build_text_embeddings(vocabulary, FakeEncoder()).array
    path = tmp_path / "RN50x16_Mine.pth"
    torch.save(torch.from_numpy(array), path)
    read = read_text_embeddings(path, vocabulary)
    np.testing.assert_array_equal(read.array, array)
    assert read.names == vocabulary.names
    read.check_fits(vocabulary, text_tower="clip-rn50x16", text_dim=8, where=str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3, 2), r"expected one \(K, S, D\) tensor"),
        ({"a": torch.ones(3, 2, 4)}, r"expected one \(K, S, D\) tensor"),
        (torch.ones(5, 1, 4), r"5 class embeddings, but vocabulary mine has 3 categories"),
        (torch.ones(3, 1, 4), r"rows are not of length 1"),
        (Path("x"), r"cannot be read as class embeddings"),
    ],
    ids=["rank", "mapping", "count", "length", "foreign object"],
)
def test_bad_official_files(
    content: object, message: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(VocabularyError, match=message):
        read_text_embeddings(path, vocabulary)


def test_unreadable_files(vocabulary: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"rubbish")
    (tmp_path / "x.pth").write_bytes(b"rubbish")
    for name in ("x.safetensors", "x.pth", "absent.safetensors", "absent.pth"):
        with pytest.raises(VocabularyError, match=f"{name}: cannot be read"):
            read_text_embeddings(tmp_path / name, vocabulary)


def test_templates_file(tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("a photo of a {}.\n\nthe {} there\n")
    assert read_templates(path) == ("a photo of a {}.", "the {} there")
    path.write_text("a photo\n")
    with pytest.raises(VocabularyError, match=r"templates\.txt: template 'a photo' has no \{\}"):
        read_templates(path)
    path.write_text("\n")
    with pytest.raises(VocabularyError, match="no template in it"):
        read_templates(path)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVSAM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/ovsam")
    monkeypatch.setenv("OVSAM_CACHE", "/y")
    assert cache_folder() == Path("/y")


def test_array_and_names_must_agree() -> None:
    with pytest.raises(ValueError, match="for 2 names"):
        TextEmbeddings(np.zeros((3, 1, 4), np.float32), ("a", "b"), "")
