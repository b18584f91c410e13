"""The bank: a view depends on its number and seed alone, files are whole, masks are exact."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import disc_mask, photo
from scene_builders import write_scenes

from ovsam_cli.model.ovsam import OVSAMConfig
from ovsam_cli.model.tiny_trunk import LiteTrunk
from ovsam_cli.training import bank
from ovsam_cli.training.bank import fill_bank, find_views, read_view, write_view
from ovsam_cli.training.data import View, to_pixels

HALF = (127.5, 127.5, 127.5)
CONFIG = OVSAMConfig(name="t", model_size=64, pixel_mean=HALF, pixel_std=HALF)


@pytest.fixture(scope="module")
def trunk() -> LiteTrunk:
    torch.manual_seed(0)
    return LiteTrunk().eval()


def test_a_view_comes_back_as_it_was(tmp_path: Path, trunk: LiteTrunk) -> None:
    masks = np.stack([disc_mask(64, 64, radius=9), np.eye(64, dtype=bool)])
    view = View(photo(48, 64), masks, ("Küche", "cat"))
    write_view(tmp_path / "000003.safetensors", view, trunk, CONFIG)
    found = read_view(tmp_path / "000003.safetensors")
    assert (found.masks == masks).all()
    assert found.names == ("Küche", "cat")
    with torch.inference_mode():
        maps = trunk(torch.from_numpy(to_pixels(view.rgb, 64, HALF, HALF))[None])
    for one, expected in zip(found.trunk_maps, maps, strict=True):
        assert torch.equal(one, expected.half().float())


def test_views_depend_on_number_and_seed_alone(tmp_path: Path, trunk: LiteTrunk) -> None:
    """Two processes that share the work make the same bank as one; what is there stays."""
    datasets = [write_scenes(tmp_path / "scenes")]
    written: list[int] = []
    for folder, numbers in (("one", [0, 1, 2]), ("two", [2]), ("two", [0, 1, 2])):
        arguments = (tmp_path / folder, datasets, [1.0], trunk, CONFIG)
        fill_bank(*arguments, numbers=numbers, seed=5, on_view_done=written.append)
    assert written == [0, 1, 2, 2, 0, 1]
    one, two = find_views(tmp_path / "one"), find_views(tmp_path / "two")
    assert [path.name for path in one] == [path.name for path in two]
    for left, right in zip(one, two, strict=True):
        assert _same_views(left, right)  # not bytes: safetensors writes headers in any order
    fill_bank(tmp_path / "three", datasets, [1.0], trunk, CONFIG, numbers=[0], seed=6)
    assert not _same_views(find_views(tmp_path / "three")[0], one[0])


def _same_views(left_path: Path, right_path: Path) -> bool:
    left, right = read_view(left_path), read_view(right_path)
    same_maps = all(map(torch.equal, left.trunk_maps, right.trunk_maps))
    same_masks = np.array_equal(left.masks, right.masks)
    return same_maps and same_masks and left.names == right.names


def test_half_written_views_are_not_seen(
    tmp_path: Path, trunk: LiteTrunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(arrays: object, path: Path, header: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    view = View(photo(48, 64), disc_mask(64, 64)[None], ("cat",))
    monkeypatch.setattr(bank, "save_file", write_half)
    with pytest.raises(KeyboardInterrupt):
        write_view(tmp_path / "000000.safetensors", view, trunk, CONFIG)
    assert find_views(tmp_path) == []
