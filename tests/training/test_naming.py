"""Names alone: descriptors kept by batch, noise on them, and a head that learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ovsam_cli.errors import InputError
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.model.tiny_build import TINY_CONFIG, build_tiny
from ovsam_cli.model.tiny_regions import DESCRIPTOR_SIZE
from ovsam_cli.training.distributed import Ranks
from ovsam_cli.training.instance_batches import InstanceBatch
from ovsam_cli.training.naming import (
    NAME_NOISE,
    NameLosses,
    RegionSource,
    disturb_descriptors,
)
from ovsam_cli.training.region_files import SETTINGS_NAME, RegionFiles, describe_batches
from ovsam_cli.training.region_sampling import NamedRegions

SIZE = 128


@pytest.fixture(scope="module")
def model() -> OVSAM:
    torch.manual_seed(0)
    return build_tiny(replace(TINY_CONFIG, model_size=SIZE, grid_size=8)).eval()


class Views:
    """Micro-batches of one view with two regions; counts how many were made."""

    def __init__(self) -> None:
        self.num_made = 0

    def __getitem__(self, index: int) -> InstanceBatch:
        self.num_made += 1
        boxes = torch.tensor([[0.0, 0, 60, 60], [30, 40, 120, 100]])
        nothing = torch.zeros(0, dtype=torch.int64)
        return InstanceBatch(
            pixels=torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(index)),
            input_hw=((SIZE, SIZE),),
            prompts=ModelPrompts(
                image_index=nothing,
                point_coords=torch.zeros(0, 0, 2),
                point_labels=torch.zeros(0, 0, dtype=torch.int64),
                model_boxes_xyxy=torch.zeros(0, 4),
                has_box=torch.zeros(0, dtype=torch.bool),
            ),
            masks=torch.zeros(0, SIZE, SIZE, dtype=torch.bool),
            mask_index=nothing,
            labels=nothing,
            boxes_xyxy=torch.zeros(0, 4),
            regions=NamedRegions(boxes, torch.tensor([index % 3, 3]), torch.zeros(2).long()),
        )


def describe(
    model: OVSAM, views: Views, count: int, folder: Path, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    found = describe_batches(model, views, count, RegionFiles(folder, {"seed": seed}))
    assert found is not None
    return found


def test_descriptors_are_those_the_head_sees(model: OVSAM, tmp_path: Path) -> None:
    descriptors, labels = describe(model, Views(), 3, tmp_path)
    assert descriptors.shape == (6, DESCRIPTOR_SIZE) and labels.tolist() == [0, 3, 1, 3, 2, 3]
    batch = Views()[1]
    assert batch.regions is not None
    with torch.inference_mode():
        features = model.encode_images(batch.pixels, batch.input_hw)
        head = model.mask_decoder.roi_conv
        expected = head.embed_regions(
            features.fpn_features, batch.regions.boxes_xyxy, batch.regions.image_index
        )
        found = head(descriptors[2:4].float())  # type: ignore[operator]
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-3)


def test_described_batches_are_read_again(model: OVSAM, tmp_path: Path) -> None:
    views = Views()
    first, _ = describe(model, views, 2, tmp_path)
    more, _ = describe(model, views, 3, tmp_path)
    assert views.num_made == 3
    assert torch.equal(more[:4], first)


def test_regions_of_other_settings_are_refused(model: OVSAM, tmp_path: Path) -> None:
    """Another seed, data or trunk took the old files by their numbers."""
    describe(model, Views(), 1, tmp_path)
    with pytest.raises(InputError, match=r"settings\.json: .* seed 1 there, 2 now"):
        describe(model, Views(), 1, tmp_path, seed=2)
    (tmp_path / SETTINGS_NAME).unlink()
    with pytest.raises(InputError, match=r"no settings\.json that says of what; remove the folder"):
        describe(model, Views(), 1, tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    describe(model, Views(), 1, tmp_path, seed=2)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half a file"])
def test_damaged_regions_are_described_again(model: OVSAM, tmp_path: Path, content: bytes) -> None:
    views = Views()
    first, _ = describe(model, views, 2, tmp_path)
    (tmp_path / "000001.pt").write_bytes(content)
    again, _ = describe(model, views, 2, tmp_path)
    assert views.num_made == 3 and torch.equal(again, first)


def test_describing_stops_when_time_is_up(model: OVSAM, tmp_path: Path) -> None:
    files = RegionFiles(tmp_path, {"seed": 1})
    assert describe_batches(model, Views(), 2, files, deadline=0.0) is None
    first, _ = describe(model, Views(), 2, tmp_path)
    kept = describe_batches(model, Views(), 2, files, deadline=0.0)  # nothing is left to do
    assert kept is not None and torch.equal(kept[0], first)


def test_ranks_describe_their_shares(model: OVSAM, tmp_path: Path) -> None:
    """The second of two ranks describes the second of three; the first one is not there."""
    views = Views()
    RegionFiles(tmp_path, {"seed": 1}).prepare()
    with pytest.raises(InputError, match="all need to see one folder"):
        describe_batches(model, views, 3, RegionFiles(tmp_path, {"seed": 1}), ranks=Second(1, 2))
    assert views.num_made == 1 and [one.name for one in tmp_path.glob("*.pt")] == ["000001.pt"]


class Second(Ranks):
    """A second rank that waits for nobody."""

    def greatest(self, values: Sequence[int]) -> list[int]:
        return list(values)


def test_regions_depend_on_their_number_alone_and_rare_names_come_more_often() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    source = RegionSource(torch.zeros(100, 4).half(), labels, batch_size=4000, seed=3)
    assert torch.equal(source[7].labels, source[7].labels)
    assert not torch.equal(source[7].labels, source[8].labels)
    share = float((source[0].labels == 1).float().mean())
    assert share == pytest.approx(10**0.5 / (10**0.5 + 90**0.5), abs=0.03)


def test_noise_keeps_the_mean_and_repeats_with_its_generator() -> None:
    descriptors = torch.ones(4000, 50)
    found = [
        disturb_descriptors(descriptors, NAME_NOISE, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert float(found[0].mean()) == pytest.approx(1, abs=0.02)
    assert 0.2 < float((found[0] == 0).float().mean()) < 0.3


def test_the_head_learns(model: OVSAM) -> None:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(3, DESCRIPTOR_SIZE, generator=generator)
    labels = torch.arange(3).repeat(40)
    noise = 0.3 * torch.randn(120, DESCRIPTOR_SIZE, generator=generator)
    source = RegionSource((centers[labels] + noise).half(), labels, batch_size=32, seed=0)
    text = F.normalize(torch.randn(3, 1, 384, generator=generator), dim=-1)
    losses = NameLosses(model, text, NAME_NOISE)
    optimizer = torch.optim.AdamW(losses.trained_parts().parameters(), lr=1e-3)
    values = []
    for step in range(30):
        optimizer.zero_grad()
        loss = losses(source[step], torch.Generator().manual_seed(step))["class"]
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] / 3
