"""Our own files: convert, load, verify; and what is said when a model cannot be found."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builders import NARROW_CONFIG, SMALL_CONFIG, build_small_model, make_prompts

from ovsam_cli.errors import CheckpointError, OutputError
from ovsam_cli.model import hub
from ovsam_cli.model.checkpoint import convert_model, load_model, verify_model
from ovsam_cli.model.config import PRESETS, OVSAMConfig
from ovsam_cli.model.own_files import save_weights

CPU = torch.device("cpu")


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    state = build_small_model().state_dict()
    save_weights(state, SMALL_CONFIG, path, license_notice="free")
    return path


def test_own_file_round_trip(own_file: Path) -> None:
    loaded = load_model(str(own_file), device=CPU)
    model = build_small_model()
    assert loaded.config == SMALL_CONFIG
    assert loaded.license_notice == "free"
    assert loaded.paths == (own_file,)
    assert len(loaded.weights_sha256) == 64
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], tensor), key
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training


def test_half_precision_storage_is_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_weights(build_small_model().state_dict(), SMALL_CONFIG, path, license_notice="", half=True)
    loaded = load_model(str(path), device=CPU)
    assert all(p.dtype == torch.float32 for p in loaded.model.parameters())
    assert path.stat().st_size < 3 * sum(p.numel() for p in loaded.model.parameters())


@torch.inference_mode()
def test_bfloat16_runs_and_is_near_float32(own_file: Path) -> None:
    pixels = torch.randn(2, 3, 128, 128)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(str(own_file), device=CPU, dtype=dtype).model
        frequencies = model.pe.pe_layer.positional_encoding_gaussian_matrix
        assert frequencies.dtype == torch.float32
        prompts = make_prompts("pb")
        prompts = type(prompts)(
            image_index=prompts.image_index,
            point_coords=prompts.point_coords,
            point_labels=prompts.point_labels,
            model_boxes_xyxy=prompts.model_boxes_xyxy,
            has_box=prompts.has_box,
        )
        features = model.encode_images(pixels.to(dtype), ((128, 128),) * 2)
        results.append(
            model.decode_masks(features, model.encode_prompts(prompts)).mask_logits.float()
        )
    agreement = ((results[0] > 0) == (results[1] > 0)).float().mean()
    assert agreement > 0.97


def test_convert_keeps_every_value_and_the_text_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision only where it is exact; the converted file loads to the same model."""
    monkeypatch.setitem(PRESETS, "rn50x16", NARROW_CONFIG)
    state = build_small_model(NARROW_CONFIG).state_dict()
    text = {"clip_text.ln_final.weight": torch.full((8,), 0.1)}
    torch.save(state | text, tmp_path / "full.pth")
    target = tmp_path / "new" / "model.safetensors"
    convert_model(str(tmp_path / "full.pth"), target)
    loaded = load_model(str(target), device=CPU)
    for key, tensor in state.items():
        assert torch.equal(loaded.model.state_dict()[key], tensor), key
    from ovsam_cli.model.official_files import read_text_weights

    assert torch.equal(read_text_weights(target)["ln_final.weight"], torch.full((8,), 0.1))
    assert sorted(path.name for path in target.parent.iterdir()) == [
        *("model.safetensors", "model.safetensors.sha256")
    ]
    with pytest.raises(OutputError, match="give --overwrite"):
        convert_model(str(tmp_path / "full.pth"), target)
    convert_model(str(tmp_path / "full.pth"), target, overwrite=True)


def test_convert_needs_a_safetensors_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a \.safetensors file"):
        convert_model("tiny", tmp_path / "model.pth")


def test_verify_describes(own_file: Path) -> None:
    text = verify_model(str(own_file))
    assert f"{own_file}: sha256 " in text
    assert text.endswith("free")


def test_verify_finds_numbers_that_are_none(tmp_path: Path) -> None:
    state = build_small_model().state_dict()
    state["neck.level_encoding.weight"][0, 0] = float("nan")
    save_weights(state, SMALL_CONFIG, tmp_path / "a.safetensors", license_notice="")
    with pytest.raises(CheckpointError, match=r"NaN or infinity, first neck\.level_encoding"):
        verify_model(str(tmp_path / "a.safetensors"))


def test_file_of_another_version(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"ovsam_config": '{"name": "x", "new_option": 3}'}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"another version of ovsam .*new_option"):
        load_model(str(tmp_path / "a.safetensors"), device=CPU)


def test_broken_own_file(own_file: Path) -> None:
    own_file.write_bytes(own_file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="truncated, corrupt"):
        load_model(str(own_file), device=CPU)


def test_unknown_name() -> None:
    with pytest.raises(CheckpointError, match=r"huge: no such file.*known names: tiny, rn50x16"):
        load_model("huge", device=CPU)


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="in this folder"):
        load_model(str(tmp_path), device=CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values | {"grid_size": "64"}, "grid_size"),
        (lambda values: {k: v for k, v in values.items() if k != "name"}, "no name"),
        (lambda values: [values], "JSON object"),
    ],
)
def test_config_is_checked(change: Callable[[dict], object], message: str) -> None:
    import json

    text = json.dumps(change(json.loads(SMALL_CONFIG.to_json())))
    with pytest.raises(ValueError, match=message):
        OVSAMConfig.from_json(text)


class TestHub:
    """No test of this suite reaches the network: the absence of it is what is tested."""

    @pytest.fixture(autouse=True)
    def empty_caches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)

    def test_without_network_it_says_what_to_do(self) -> None:
        with pytest.raises(CheckpointError) as failure:
            load_model("rn50x16", device=CPU)
        message = str(failure.value)
        assert "hf download HarborYuan/ovsam_models sam2clip_vith_rn50x16.pth" in message
        assert "--revision" in message
        assert "--model tiny" in message

    def test_offline_mode_asks_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert not hub.can_reach_hub()

    def test_converted_file_in_the_cache_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "cache" / "models" / "rn50x16.safetensors"
        save_weights(build_small_model().state_dict(), SMALL_CONFIG, path, license_notice="")
        assert load_model("rn50x16", device=CPU).paths == (path,)
        assert hub.download_model("rn50x16") == [path]
        assert {model.name: model.path for model in hub.list_models()}["rn50x16"] == path

    def test_official_files_in_the_cache_are_found(self, tmp_path: Path) -> None:
        folder = tmp_path / "cache" / "models" / "rn50x16"
        folder.mkdir(parents=True)
        (folder / "b.pth").write_bytes(b"")
        (folder / "a.pt").write_bytes(b"")
        (folder / "notes.txt").write_bytes(b"")
        assert hub.find_local_files("rn50x16") == [folder / "a.pt", folder / "b.pth"]

    def test_unknown_model(self) -> None:
        with pytest.raises(CheckpointError, match="no model is called 'big'"):
            hub.download_model("big")

    def test_damaged_download(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The hub names large files by their checksum but compares only their size."""
        blob = tmp_path / ("0" * 64)
        blob.write_bytes(b"flipped")
        monkeypatch.setattr(hub, "can_reach_hub", lambda: True)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(blob))
        with pytest.raises(CheckpointError, match="damaged on the way"):
            hub.download_model("rn50x16")

    def test_failing_download(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: str) -> str:
            raise OSError("connection lost\nand more")

        monkeypatch.setattr(hub, "can_reach_hub", lambda: True)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
        with pytest.raises(CheckpointError, match=r"connection lost\. On a machine with network"):
            hub.download_model("rn50x16")
