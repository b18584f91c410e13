"""Which tower a model's name, file or folder gives."""

from pathlib import Path

import pytest
import torch

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model import text_towers
from ovsam_cli.model.text_encoder import ClipTextEncoder
from ovsam_cli.model.text_towers import load_text_tower

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_towers, "find_cached", lambda file: None)


@pytest.fixture
def clip_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    encoder = ClipTextEncoder(embed_dim=64, text_dim=8, depth=1, num_tokens=50)
    state = {key: torch.randn_like(tensor) for key, tensor in encoder.state_dict().items()}
    return {**state, "visual.conv1.weight": torch.zeros(1), "logit_scale": torch.zeros(())}


def test_tiny_has_sentence_vectors() -> None:
    assert load_text_tower("tiny", device=CPU).text_tower == "minilm-l6"


def test_official_file_and_folder(clip_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(clip_state, tmp_path / "RN50x16.pt")
    torch.save({"state_dict": {"neck.x": torch.zeros(1)}}, tmp_path / "ovsam.pth")
    by_file = load_text_tower(str(tmp_path / "RN50x16.pt"), device=CPU)
    by_folder = load_text_tower(str(tmp_path), device=CPU)
    assert by_file.text_tower == "clip-rn50x16"
    assert by_file.weights_sha256 == by_folder.weights_sha256


def test_hub_cache_is_looked_at_last(
    clip_state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(clip_state, tmp_path / "cached.pt")
    torch.save({"neck.x": torch.zeros(1)}, tmp_path / "ovsam.pth")
    monkeypatch.setattr(text_towers, "find_cached", lambda file: tmp_path / "cached.pt")
    assert load_text_tower(str(tmp_path / "ovsam.pth"), device=CPU).text_tower == "clip-rn50x16"
    assert load_text_tower("rn50x16", device=CPU).text_tower == "clip-rn50x16"


def test_no_tower(tmp_path: Path) -> None:
    torch.save({"neck.x": torch.zeros(1)}, tmp_path / "ovsam.pth")
    with pytest.raises(CheckpointError, match=r"ovsam\.pth: no CLIP text tower in it; put RN50x16"):
        load_text_tower(str(tmp_path / "ovsam.pth"), device=CPU)
    with pytest.raises(CheckpointError, match=r"nothing: no such file or folder"):
        load_text_tower("nothing", device=CPU)
