"""Files of any origin: what is read, what is refused, and what is said about broken ones."""

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model.unpickling import read_tensors

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3)}


class Attack:
    """Runs a command when a plain pickle reader meets it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, (f"touch {self.marker}",)


class History(collections.UserDict):
    """A foreign object, as training frameworks leave beside the weights."""


class Rows(list):
    """A foreign list."""


class Table(dict):
    """A foreign mapping."""


def assert_read(path: Path, messages: list[str] | None = None) -> None:
    found = read_tensors(path, None if messages is None else messages.append)
    assert found.keys() == TENSORS.keys()
    for key, tensor in TENSORS.items():
        assert torch.equal(found[key], tensor)


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert_read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("new_format", [True, False])
def test_torch_files_of_both_formats(tmp_path: Path, new_format: bool) -> None:
    torch.save(TENSORS, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    assert_read(tmp_path / "a.pth")


@pytest.mark.parametrize("new_format", [True, False])
def test_foreign_objects_become_stubs(tmp_path: Path, new_format: bool) -> None:
    """What a training framework pickles beside the weights is neither needed nor made."""
    content = {
        "state_dict": collections.OrderedDict(TENSORS, extra="no tensor"),
        "meta": {"loss": np.float32(0.5), "rows": Rows([1, 2]), "table": Table(x=1)},
        "message_hub": {"history": History(loss=[1, 2]), "array": np.arange(3)},
        "getattr": getattr,
    }
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    messages: list[str] = []
    assert_read(path, messages)
    assert "ignored objects of " in messages[0]
    assert ".getattr" in messages[0]


@pytest.mark.parametrize("new_format", [True, False])
def test_a_malicious_file_runs_nothing(tmp_path: Path, new_format: bool) -> None:
    marker = tmp_path / "marker"
    content = {"state_dict": TENSORS, "meta": Attack(marker)}
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    messages: list[str] = []
    assert_read(path, messages)
    assert "posix.system" in messages[0] or "nt.system" in messages[0]
    assert not marker.exists()


def test_a_malicious_pickle_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(Attack(marker), protocol=2))
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_archive(tmp_path: Path) -> None:
    """OpenAI's CLIP files are TorchScript; their tensors are found without running them."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).half().eval()
    traced = torch.jit.trace(model, torch.zeros(1, 1, 4, 4).half())
    path = tmp_path / "clip.pt"
    torch.jit.save(traced, path)
    found = read_tensors(path)
    assert found.keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(found[key], tensor), key
        assert found[key].dtype == tensor.dtype
    content = bytearray(path.read_bytes())
    position = content.find(model[0].weight.detach().numpy().tobytes()[:16])
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="BadZipFile"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "the file is empty"),
        ("a.safetensors", b"", "the file is empty"),
        ("a.pth", b"\n<!DOCTYPE html><html>", "a web page"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("a.pt", b"\x00garbage" * 20, "truncated, corrupt or not weights"),
        # Pickles of a text, and of a frame, that are longer than any memory.
        ("a.pt", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f", "truncated, corrupt or not weights"),
        ("a.pt", b"\x80\x04\x95" + b"\xff" * 8, "truncated, corrupt or not weights"),
    ],
)
def test_what_is_said_about_other_files(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as failure:
        read_tensors(path)
    assert f"{path} ({len(content)} bytes)" in str(failure.value)
    assert "download it again" in str(failure.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save(TENSORS, path)
    else:
        save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="truncated, corrupt"):
        read_tensors(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_tensors(tmp_path / "absent.pth")


def test_a_bare_tensor_has_no_names(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth") == {}
