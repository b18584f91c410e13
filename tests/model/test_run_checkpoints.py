"""Checkpoints of training as models: put on the weights they started from, finished, refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from small_model import SMALL
from torch import Tensor

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model.checkpoint import build_ovsam, load_model
from ovsam_cli.model.official_files import find_weight_files
from ovsam_cli.model.own_files import ModelWeights, save_weights
from ovsam_cli.model.run_checkpoints import (
    BoxCalibration,
    Finish,
    read_checkpoint,
    read_finish,
    read_own_or_checkpoint,
    save_start,
)
from ovsam_cli.model.tiny_build import TINY_CONFIG, build_tiny
from ovsam_cli.model.tiny_decoder import TinyMaskDecoder

KEY = "neck.pos_embed"
TEXT = {"text_projection": torch.full((2, 2), 1 / 3)}


def begin(folder: Path, finish: Finish | None = None) -> dict[str, Tensor]:
    """A run's start of the small model; its tensors."""
    torch.manual_seed(3)
    state = build_ovsam(SMALL).state_dict()
    start = ModelWeights(SMALL, state, TEXT, (), "a notice")
    save_start(folder, start, finish or Finish("files"))
    return state


def save(path: Path, *, origin: str = "files", **entries: object) -> Path:
    torch.save({"step": 3, "settings": {"stage weights": origin}, **entries}, path)
    return path


def read(path: Path) -> ModelWeights:
    weights = read_checkpoint(path)
    assert weights is not None
    return weights


def test_trained_parts_are_put_on_the_start(tmp_path: Path) -> None:
    state = begin(tmp_path)
    trained = {KEY: state[KEY] + 1}
    weights = read(save(tmp_path / "last.pt", trained=trained, average=None))
    assert weights.config == SMALL and weights.license_notice == "a notice"
    assert weights.paths == (tmp_path / "last.pt", tmp_path / "start.safetensors")
    assert torch.equal(weights.text_weights["text_projection"], TEXT["text_projection"])
    for key, value in state.items():
        assert torch.equal(weights.tensors[key].to(value.dtype), trained.get(key, value))
    average = {KEY: state[KEY] + 2}
    saved = save(tmp_path / "last.pt", trained=trained, average=average)
    assert torch.equal(read(saved).tensors[KEY], average[KEY])
    best = save(tmp_path / "best.pt", weights=trained)
    assert torch.equal(read(best).tensors[KEY], trained[KEY])
    loaded = load_model(str(best), device=torch.device("cpu"))
    assert torch.equal(loaded.model.state_dict()[KEY], trained[KEY])


def test_weights_are_finished(tmp_path: Path) -> None:
    state = begin(tmp_path, Finish("files", start_share=0.25, is_half=True))
    weights = read(save(tmp_path / "last.pt", trained={KEY: state[KEY] + 1}))
    assert weights.tensors[KEY].dtype == torch.float16
    torch.testing.assert_close(weights.tensors[KEY], (state[KEY] + 0.75).half())
    assert weights.text_weights["text_projection"].dtype == torch.float16


def test_boxes_of_tiny_are_calibrated(tmp_path: Path) -> None:
    model = build_tiny(TINY_CONFIG)
    finish = Finish("files", boxes=BoxCalibration(0.5, 10.0))
    save_start(tmp_path, ModelWeights(TINY_CONFIG, model.state_dict(), {}, (), ""), finish)
    assert read_finish(tmp_path / "start.safetensors") == finish
    bias = "mask_decoder.hypernetwork.layers.2.bias"
    trained = {bias: torch.randn_like(model.state_dict()[bias])}
    found = read(save(tmp_path / "last.pt", trained=trained)).tensors
    model.load_state_dict({**model.state_dict(), **trained})
    assert isinstance(model.mask_decoder, TinyMaskDecoder)
    model.mask_decoder.calibrate_boxes(gain=0.5, outside=10.0)
    for key, value in model.state_dict().items():
        assert torch.equal(found[key].to(value.dtype), value), key


def test_the_folder_of_a_run_is_a_model_at_any_moment(tmp_path: Path) -> None:
    state = begin(tmp_path)
    with pytest.raises(CheckpointError, match="a training run without a checkpoint yet"):
        find_weight_files(tmp_path)
    last = save(tmp_path / "last.pt", trained={KEY: state[KEY] + 1})
    assert find_weight_files(tmp_path) == [last]
    best = save(tmp_path / "best.pt", weights={KEY: state[KEY] + 2})
    assert find_weight_files(tmp_path) == [best]
    result = tmp_path / "model.safetensors"
    save_weights(state, SMALL, result, license_notice="")
    assert find_weight_files(tmp_path) == [result]


def test_what_does_not_belong_together(tmp_path: Path) -> None:
    last = save(tmp_path / "last.pt", trained={KEY: torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"expected in .*start\.safetensors.*keep them toge"):
        read_checkpoint(last)
    begin(tmp_path)
    with pytest.raises(CheckpointError, match=r"neck\.pos_embed \(1,\) is not of the model in"):
        read_checkpoint(last)
    with pytest.raises(CheckpointError, match=r"another run .* from others, not files"):
        read_checkpoint(save(last, trained={}, origin="others"))


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    torch.save({"state_dict": {KEY: torch.zeros(1)}}, other)
    assert read_own_or_checkpoint(other) is None
    other.write_bytes(b"no archive")
    assert read_own_or_checkpoint(other) is None
    with zipfile.ZipFile(other, "w") as archive:  # as TorchScript's, and CLIP's
        archive.writestr("x/constants.pkl", b"")
    assert read_own_or_checkpoint(other) is None


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """Objects of unknown classes make the restricted reader refuse the whole file."""
    begin(tmp_path)
    path = save(tmp_path / "last.pt", trained={KEY: torch.zeros(1)}, extra=Path("x"))
    assert read_own_or_checkpoint(path) is None


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    """Metadata came in random order: one and the same run ended in files of several hashes."""
    files = [tmp_path / f"{number}.safetensors" for number in range(6)]
    notes = {"b": "ü", "a": "\n", "c": '"'}
    for path in files:
        save_weights({KEY: torch.ones(3)}, SMALL, path, license_notice="x", notes=notes)
    assert len({path.read_bytes() for path in files}) == 1
