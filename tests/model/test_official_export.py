"""A model of ours in the official layout comes back bit-equal through the official reader."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_model import SMALL, write_small_checkpoint

from ovsam_cli.errors import CheckpointError, OutputError
from ovsam_cli.model.checkpoint import build_ovsam, save_weights
from ovsam_cli.model.official_export import export_official
from ovsam_cli.model.official_files import CANONICAL_PREFIXES, check_weights, read_official
from ovsam_cli.model.own_files import read_own


@pytest.mark.parametrize("iou_head", [False, True])
def test_there_and_back(tmp_path: Path, iou_head: bool) -> None:
    config = replace(SMALL, iou_head=iou_head, num_point_masks=3 * iou_head)
    source, target = tmp_path / "own.safetensors", tmp_path / "official.pth"
    torch.manual_seed(4)
    model = build_ovsam(config)
    save_weights(model.state_dict(), config, source, license_notice="none")
    said: list[str] = []
    export_official(str(source), target, on_message=said.append)
    found = read_official([target])
    wanted = model.state_dict()
    check_weights(found.weights, wanted, str(target))
    assert found.weights.keys() == wanted.keys()
    assert all(torch.equal(found.weights[key], value) for key, value in wanted.items())
    assert all(key.startswith(CANONICAL_PREFIXES) for key in found.weights)
    assert any("IoU head" in text for text in said) == iou_head
    content = torch.load(target, weights_only=True)
    assert content.keys() == {"state_dict", "meta"}


def test_refusals(tmp_path: Path) -> None:
    source = write_small_checkpoint(tmp_path / "own.safetensors")
    target = tmp_path / "official.pth"
    with pytest.raises(OutputError, match=r"name it so"):
        export_official(str(source), tmp_path / "official.bin")
    target.touch()
    with pytest.raises(OutputError, match="--overwrite"):
        export_official(str(source), target)
    with pytest.raises(CheckpointError, match="efficientnet-lite0 has no official layout"):
        export_official("tiny", target, overwrite=True)
    export_official(str(source), target, overwrite=True)
    assert read_own(source) is not None and target.stat().st_size > 1000
