"""Every layout of the official files, at the published depths and keys but narrow sizes."""

import json
from pathlib import Path

import pytest
import torch
from golden.official import (
    FULL_FILE,
    RELEASE_SET,
    TRAINING_SET,
    is_wrapped,
    read_layouts,
    write_official,
)
from model_builders import NARROW_CONFIG
from torch import Tensor

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model import checkpoint
from ovsam_cli.model.checkpoint import build_ovsam, load_model
from ovsam_cli.model.config import PRESETS
from ovsam_cli.model.official_files import read_official, read_text_weights

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_files_of_published_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files here have the published names and little inside."""
    monkeypatch.setattr("ovsam_cli.model.known_files.KNOWN_SHA256", {})


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A narrow model's tensors under canonical keys, CLIP's exact in half precision."""
    torch.manual_seed(0)
    tensors = build_ovsam(NARROW_CONFIG).state_dict()
    for key, tensor in tensors.items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape)
            tensors[key] = values.half().float() if key.startswith("backbone.") else values
    return tensors


@pytest.fixture(autouse=True)
def narrow_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "rn50x16", NARROW_CONFIG)


def write(folder: Path, names: tuple[str, ...], state: dict[str, Tensor]) -> None:
    """Files with the state's tensors; what the model has not got (text, SAM's rest) is small."""
    write_official(folder, names, lambda key: state.get(key, torch.full((2,), 0.5)))


def assert_state(path: Path, state: dict[str, Tensor]) -> None:
    loaded = load_model(str(path), device=CPU)
    found = loaded.model.state_dict()
    assert found.keys() == state.keys()
    for key, tensor in state.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor), key


def test_keys_are_the_published_ones(state: dict[str, Tensor]) -> None:
    assert state.keys() == read_layouts()[FULL_FILE].keys()
    assert len(state) == 993


def test_published_shapes() -> None:
    """The preset has the very shapes of the published model: 304,046,908 parameters."""
    path = Path(__file__).parent.parent / "golden" / "official_keys.json"
    wanted = json.loads(path.read_text())["canonical"]
    with torch.device("meta"):
        model = build_ovsam(checkpoint.OVSAMConfig(name="rn50x16"))
    found = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert found == {key: [n for n in wanted[key] if isinstance(n, int)] for key in found}
    assert sum(parameter.numel() for parameter in model.parameters()) == 304_046_908


@pytest.mark.parametrize("wrapped", [True, False])
def test_one_full_file(tmp_path: Path, state: dict[str, Tensor], wrapped: bool) -> None:
    content = {"state_dict": state, "meta": {"epoch": 1}, "optimizer": {"lr": 0.1}}
    torch.save(content if wrapped else state, tmp_path / "full.pth")
    assert_state(tmp_path / "full.pth", state)


@pytest.mark.parametrize("names", [RELEASE_SET, TRAINING_SET], ids=["release", "training"])
def test_sets(tmp_path: Path, state: dict[str, Tensor], names: tuple[str, ...]) -> None:
    write(tmp_path, names, state)
    assert_state(tmp_path, state)


def test_set_with_the_outer_level_turned_round(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Files that are wrapped come bare and the other way round, in half precision for CLIP."""
    write(tmp_path, RELEASE_SET, state)
    for name in RELEASE_SET:
        content = torch.load(tmp_path / name)
        content = content["state_dict"] if is_wrapped(name) else {"state_dict": content}
        if name == "RN50x16.pt":
            inner = content["state_dict"]
            content = {k: v.half() if v.is_floating_point() else v for k, v in inner.items()}
        torch.save(content, tmp_path / name)
    assert_state(tmp_path, state)


def test_extra_keys_prefixes_and_files_are_tolerated(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    extra = {"data_preprocessor.mean": torch.zeros(3), "backbone_teacher.x": torch.zeros(1)}
    wrapped = {f"module.{key}": tensor for key, tensor in (state | extra).items()}
    torch.save({"state_dict": wrapped}, tmp_path / "full.pth")
    torch.save(torch.zeros(5, 2, 8), tmp_path / "RN50x16_LVISV1Dataset.pth")
    messages: list[str] = []
    load_model(str(tmp_path), device=CPU, on_message=messages.append)
    assert len(messages) == 1
    assert "RN50x16_LVISV1Dataset.pth: no weights of this model" in messages[0]
    assert_state(tmp_path, state)


def test_the_extra_file_of_the_release_set_overrules(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    """FPN and roi_conv of the demo come from its V3Det file, whatever the other file says."""
    write(tmp_path, RELEASE_SET, state)
    path = tmp_path / "ovsam_R50x16_lvisnorare.pth"
    content = torch.load(path)
    roi_conv, fpn = "mask_decoder.roi_conv.0.conv.weight", "fpn_neck.fpn_convs.0.conv.bias"
    content["state_dict"][roi_conv] = state[roi_conv] + 1
    content["state_dict"][fpn] = state[fpn] + 1
    torch.save(content, path)
    assert_state(tmp_path, state)
    assert load_model(str(tmp_path), device=CPU).config.head_roi_size == 7


def test_contradicting_files_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pth")
    key = "neck.level_encoding.weight"
    torch.save(state | {key: state[key] + 1}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=rf"a\.pth and .*b\.pth disagree about {key}"):
        load_model(str(tmp_path), device=CPU)


def test_batch_counters_of_old_files(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Old PyTorch wrote 0-d counters as (1,); such files were once refused as another model's."""
    old = {key: t.reshape(1) if key.endswith("tracked") else t for key, t in state.items()}
    write(tmp_path, (FULL_FILE,), old)
    assert_state(tmp_path / FULL_FILE, state)


def test_missing_parts_are_named_with_their_suppliers(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    write(tmp_path, RELEASE_SET[3:], state)
    with pytest.raises(CheckpointError, match=r"874 of 993 tensors are missing") as failure:
        load_model(str(tmp_path), device=CPU)
    for hint in ("backbone.stem.0.weight", "sam2clip_vith_rn50.pth", "sam_vit_h_4b8939.pth"):
        assert hint in str(failure.value)


def test_wrong_shapes_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    key = "pe.no_mask_embed.weight"
    torch.save(state | {key: torch.zeros(1, 9)}, tmp_path / "full.pth")
    with pytest.raises(CheckpointError, match=rf"{key} has shape \(1, 9\), expected \(1, 16\)"):
        load_model(str(tmp_path / "full.pth"), device=CPU)


def test_files_of_something_else(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no OVSAM weights found"):
        load_model(str(tmp_path / "other.pth"), device=CPU)


def test_text_tower_of_the_clip_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    write(tmp_path, ("RN50x16.pt", TRAINING_SET[0]), state)
    found = read_text_weights(tmp_path / "RN50x16.pt")
    assert len(found) == 921 - sum(key.startswith("backbone.") for key in state)
    assert "token_embedding.weight" in found
    assert read_text_weights(tmp_path / TRAINING_SET[0]) == {}
    assert read_official([tmp_path / "RN50x16.pt"]).text_weights.keys() == found.keys()
