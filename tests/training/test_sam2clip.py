"""The SAM2CLIP stage: start, loss, order of images, and what training leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from small_model import SMALL
from teacher_builders import build_small_encoder, write_images, write_sam_file
from torch import Tensor

from ovsam_cli.errors import CheckpointError, InputError
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.model.checkpoint import build_ovsam, convert_model, load_model
from ovsam_cli.model.config import PRESETS
from ovsam_cli.model.official_files import read_official
from ovsam_cli.model.own_files import save_weights
from ovsam_cli.model.unpickling import read_tensors
from ovsam_cli.training.checkpoints import load_trained_weights
from ovsam_cli.training.distill_batches import DistillSource
from ovsam_cli.training.distributed import Ranks
from ovsam_cli.training.sam2clip import (
    DistillRecipe,
    Sam2ClipLosses,
    build_neck,
    compute_sine_positions,
)
from ovsam_cli.training.sam2clip_inputs import Sam2ClipOptions, load_trunk
from ovsam_cli.training.sam2clip_run import (
    build_loop_options,
    train_sam2clip,
)
from ovsam_cli.training.stages import Listeners, StageSummary
from ovsam_cli.training.teacher_cache import TeacherCache
from ovsam_cli.training.teacher_encoding import EncodingOptions
from ovsam_cli.training.teacher_images import find_teacher_images
from ovsam_cli.training.teacher_processes import Callbacks, cache_teacher

SHAPE = (32, 8, 8)
NAMES = ["a.jpg", "b.jpg", "c.png", "d.jpg", "e.jpg"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/, sam.pth, trunk.safetensors (a whole small model) and cache/."""
    folder = tmp_path_factory.mktemp("sam2clip")
    write_images(folder / "images", NAMES)
    write_sam_file(folder / "sam.pth", build_small_encoder())
    torch.manual_seed(2)
    model = build_ovsam(SMALL)
    save_weights(model.state_dict(), SMALL, folder / "trunk.safetensors", license_notice="none")
    cache_teacher(
        find_teacher_images(folder / "images"),
        EncodingOptions(folder / "cache", folder / "sam.pth", shard_size=3, num_threads=1),
        ("cpu",),
        Callbacks(lambda estimate: None, lambda has_features: None, lambda text: None),
    )
    return folder


@pytest.fixture
def options(workplace: Path, tmp_path: Path) -> Sam2ClipOptions:
    return Sam2ClipOptions(
        images=workplace / "images",
        out=tmp_path / "run",
        trunk=workplace / "trunk.safetensors",
        teacher_cache=workplace / "cache",
        recipe=replace(DistillRecipe(), warmup_steps=2),
        max_steps=30,
        images_per_batch=2,
        accumulate=1,
        learning_rate=3e-3,
        num_workers=0,
        device="cpu",
    )


def run(options: Sam2ClipOptions, messages: list[str] | None = None) -> StageSummary:
    said = [] if messages is None else messages
    return train_sam2clip(
        options, Listeners(said.append, lambda line: None, lambda what, done, total: None)
    )


def read_losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["distillation"] for line in lines if line["kind"] == "train"]


def test_published_schedule(options: Sam2ClipOptions) -> None:
    """24 epochs of 16 images a step, however they are spread; the rate in proportion."""
    published = replace(
        Sam2ClipOptions(options.images, options.out, options.trunk), images_per_batch=2
    )
    for ranks, accumulate in ((Ranks(0, 8), 1), (Ranks(), 8)):
        loop = build_loop_options(published, 1000, ranks)
        assert (loop.accumulate, loop.max_steps, loop.learning_rate) == (accumulate, 1500, 1e-4)
    assert (loop.weight_decay, loop.betas, loop.gradient_clip) == (0.05, (0.9, 0.999), 5.0)
    assert (loop.warmup_steps, loop.warmup_share, loop.final_share) == (500, 0.001, 0.01)
    assert (loop.schedule, loop.average_decay) == ("cosine", None)
    larger = build_loop_options(replace(published, accumulate=2), 1000, Ranks(0, 8))
    assert larger.learning_rate == 2e-4


def test_start_of_the_neck() -> None:
    positions = torch.randn(1, 8, 8, 32)
    neck = build_neck(SMALL, pos_embed=positions, seed=4)
    assert torch.equal(neck.pos_embed, positions)
    assert "pos_embed" not in dict(neck.named_parameters())
    state = neck.state_dict()
    assert all(not t.any() for key, t in state.items() if "rel_pos" in key)
    assert 0.8 < float(state["level_encoding.weight"].std()) < 1.2
    again = build_neck(SMALL, pos_embed=positions, seed=4).state_dict()
    assert all(torch.equal(state[key], again[key]) for key in state)
    with pytest.raises(ValueError, match="pos_embed is"):
        build_neck(SMALL, pos_embed=positions[..., :4], seed=4)


def test_sine_positions() -> None:
    """Against the formula, written out for one place and channel of each quarter."""
    table = compute_sine_positions(8, 16)
    assert table.shape == (1, 8, 8, 16)
    row, column, number = 5, 3, 2
    angles = [place / 10000 ** (number / 4) for place in (column, column, row, row)]
    waves = [wave(angle) for wave, angle in zip((np.sin, np.cos) * 2, angles, strict=True)]
    assert table[0, row, column, number::4].tolist() == pytest.approx(waves, abs=1e-6)


@pytest.mark.parametrize("is_live", [False, True])
def test_loss_is_the_mean_squared_error(workplace: Path, is_live: bool) -> None:
    """Padding included, against the parts called one by one; only the neck gets gradients."""
    images = find_teacher_images(workplace / "images")
    encoder = build_small_encoder()
    config, trunk = load_trunk(workplace / "trunk.safetensors")
    neck = build_neck(config, pos_embed=encoder.pos_embed.data, seed=0)
    cache = None if is_live else TeacherCache(workplace / "cache", SHAPE)
    source = DistillSource(images, config, images_per_batch=2, seed=0, cache=cache)
    losses = Sam2ClipLosses(backbone=trunk, neck=neck, teacher=encoder if is_live else None)
    found = losses(source[1], torch.Generator())
    assert found.keys() == {"distillation"}
    pixels = source[1].pixels
    with torch.no_grad():
        difference = neck(trunk(pixels)) - encoder(pixels)
    expected = difference.square().sum() / difference.numel()
    torch.testing.assert_close(found["distillation"], expected, rtol=1e-3, atol=1e-4)
    found["distillation"].backward()
    assert {name.partition(".")[0] for name, p in losses.named_parameters() if p.requires_grad} == {
        "neck"
    }
    assert all(parameter.grad is not None for parameter in neck.parameters())
    assert losses.trained_parts() is neck


def test_every_epoch_shows_every_image_once(workplace: Path) -> None:
    images = find_teacher_images(workplace / "images")
    source = DistillSource(images, SMALL, images_per_batch=1, seed=3, cache=None)
    pixels = [
        preprocess(
            read_image(images[i].path).rgb,
            model_size=SMALL.model_size,
            mean=SMALL.pixel_mean,
            std=SMALL.pixel_std,
        )[0]
        for i in range(5)
    ]

    def find(index: int) -> int:
        (one,) = source[index].pixels.numpy()
        return next(i for i, wanted in enumerate(pixels) if np.array_equal(one, wanted))

    first, second = [find(i) for i in range(5)], [find(i) for i in range(5, 10)]
    assert sorted(first) == sorted(second) == list(range(5))
    assert first != second
    assert find(1) == first[1]  # back in the first epoch
    other = DistillSource(images, SMALL, images_per_batch=1, seed=4, cache=None)
    assert any(not torch.equal(other[i].pixels, source[i].pixels) for i in range(5))


def test_a_bad_image_gives_way_to_the_next(tmp_path: Path) -> None:
    folder = write_images(tmp_path, NAMES)
    (folder / "b.jpg").write_bytes(b"torn")
    images = find_teacher_images(folder)
    source = DistillSource(images, SMALL, images_per_batch=5, seed=0, cache=None)
    batch = source[0]
    assert batch.num_images == 5
    assert {one.path for one in batch.skipped} == {folder / "b.jpg"}
    for name in NAMES:
        (folder / name).write_bytes(b"torn")
    with pytest.raises(InputError, match="no image can be read, the last failure"):
        source[0]


def test_training_lowers_the_loss_and_the_neck_loads(
    options: Sam2ClipOptions, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has the published keys: beside the other official parts it is the neck."""
    summary = run(replace(options, num_validation=1))
    losses = read_losses(options.out)
    assert summary.training.is_finished and losses[-1] < 0.8 * losses[0]
    monkeypatch.setitem(PRESETS, "rn50x16", SMALL)
    official = read_official([summary.path]).weights
    trained = load_trained_weights(summary.training.checkpoint)
    assert official.keys() == {f"neck.{key}" for key in trained}
    assert all(torch.equal(official[f"neck.{key}"], t) for key, t in trained.items())
    model = build_ovsam(SMALL)
    model.load_state_dict(official, strict=False)
    assert torch.equal(model.neck.pos_embed, build_small_encoder().pos_embed)
    with safe_open(summary.path, framework="pt") as file:
        facts = json.loads(file.metadata()["sam2clip"])
    assert facts["config"]["neck_dim"] == 32 and facts["steps"] == 30


def test_the_neck_makes_an_official_set_complete(
    options: Sam2ClipOptions, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a file with the other parts it is read and converted like the published one."""
    neck_path = run(replace(options, max_steps=1)).path
    folder = tmp_path / "set"
    folder.mkdir()
    neck_path.rename(folder / neck_path.name)
    rest = read_tensors(workplace / "trunk.safetensors")
    rest = {key: tensor for key, tensor in rest.items() if not key.startswith("neck.")}
    torch.save(rest, folder / "clip2sam_coco_rn50x16.pth")
    monkeypatch.setitem(PRESETS, "rn50x16", SMALL)
    convert_model(str(folder), tmp_path / "whole.safetensors")
    for source in (folder, tmp_path / "whole.safetensors"):
        loaded = load_model(str(source), device=torch.device("cpu")).model.neck.state_dict()
        trained = load_trained_weights(options.out / "last.pt")
        assert all(torch.equal(loaded[key], tensor) for key, tensor in trained.items())


def test_goes_on_where_it_was(options: Sam2ClipOptions, tmp_path: Path) -> None:
    """Stopped by the clock after one step, then to the end: the same weights, bit for bit."""
    short = replace(options, max_steps=6)
    whole = run(short)
    parts = replace(short, out=tmp_path / "parts")
    stopped = run(replace(parts, max_seconds=1e-9))
    assert (stopped.training.steps, stopped.training.is_finished) == (1, False)
    assert run(parts).training.is_finished
    weights = [
        load_trained_weights(summary_out / "last.pt") for summary_out in (short.out, parts.out)
    ]
    assert whole.training.steps == 6
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_live_teacher_equals_the_cache(options: Sam2ClipOptions, workplace: Path) -> None:
    """Up to the half precision of what is stored."""
    cached = run(replace(options, max_steps=2, out=options.out / "cached"))
    live = replace(
        options,
        teacher_cache=None,
        teacher_checkpoint=workplace / "sam.pth",
        max_steps=2,
        out=options.out / "live",
    )
    weights = [load_trained_weights(one.training.checkpoint) for one in (cached, run(live))]
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], rtol=0, atol=2e-3)


def test_a_teacher_of_another_width_gives_sines(
    options: Sam2ClipOptions, workplace: Path, tmp_path: Path
) -> None:
    other = write_sam_file(tmp_path / "narrow.pth", build_small_encoder(dim=16))
    messages: list[str] = []
    summary = run(replace(options, teacher_checkpoint=other, max_steps=1), messages)
    assert any("it gets sines" in text for text in messages)
    weights = load_trained_weights(summary.training.checkpoint)
    assert torch.equal(weights["pos_embed"], compute_sine_positions(8, 32))


def test_images_without_features_are_left_out(
    options: Sam2ClipOptions, workplace: Path, tmp_path: Path
) -> None:
    more = write_images(tmp_path / "more", [*NAMES, "f.jpg", "g.jpg"])
    messages: list[str] = []
    run(replace(options, images=more, max_steps=1), messages)
    assert "2 images have no features and are left out" in messages
    other = write_images(tmp_path / "other", ["x.jpg"])
    with pytest.raises(InputError, match=r"features of none of the 1 images .*x_vit_h_cache.pth"):
        run(replace(options, images=other))


def test_refusals(options: Sam2ClipOptions, workplace: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no teacher: give --teacher-cache FOLDER"):
        run(replace(options, teacher_cache=None))
    with pytest.raises(InputError, match="5 images held out of 5: none would be left"):
        run(replace(options, num_validation=5))
    with pytest.raises(CheckpointError, match="no OVSAM weights found"):
        run(replace(options, trunk=workplace / "cache" / "teacher.safetensors"))
    with pytest.raises(CheckpointError, match=r"backbone\.\* is in RN50x16.pt"):
        save_neck_only(tmp_path / "neck.pth")
        run(replace(options, trunk=tmp_path / "neck.pth"))
    large = write_sam_file(tmp_path / "large.pth", build_small_encoder(out_dim=16))
    with pytest.raises(InputError, match=r"features of shape \(16, 8, 8\), the neck makes"):
        run(replace(options, teacher_cache=None, teacher_checkpoint=large))
    (workplace / "cache" / "teacher.safetensors").rename(tmp_path / "away")
    try:
        with pytest.raises(InputError, match="without the teacher's positions"):
            run(options)
    finally:
        (tmp_path / "away").rename(workplace / "cache" / "teacher.safetensors")


def save_neck_only(path: Path) -> None:
    weights: dict[str, Tensor] = {"neck_student.pos_embed": torch.zeros(1, 8, 8, 32)}
    torch.save(weights, path)


def test_a_model_without_clip_trunk_is_refused(options: Sam2ClipOptions) -> None:
    from ovsam_cli.model.known_models import TINY_PATH

    with pytest.raises(InputError, match="a efficientnet-lite0 trunk; SAM2CLIP is for CLIP's"):
        run(replace(options, trunk=TINY_PATH))
