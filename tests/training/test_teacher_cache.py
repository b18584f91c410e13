"""The teacher's features: what is stored, going on after a stop, and the original's files."""

from __future__ import annotations

import json
import queue
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from teacher_builders import build_small_encoder, write_images, write_sam_file
from torch import Tensor

from ovsam_cli.errors import CheckpointError, InputError, OutputError, OvsamError
from ovsam_cli.training import teacher_cache, teacher_encoding, teacher_processes
from ovsam_cli.training.teacher import load_teacher
from ovsam_cli.training.teacher_cache import TeacherCache, read_shard_index
from ovsam_cli.training.teacher_encoding import EncodingOptions
from ovsam_cli.training.teacher_images import TeacherImages, find_teacher_images, read_pixels
from ovsam_cli.training.teacher_processes import (
    Callbacks,
    EncodingSummary,
    cache_teacher,
    parse_devices,
)

SHAPE = (32, 8, 8)
NAMES = ["a.jpg", "b.jpg", "c/c.png", "d.jpg", "e.jpg"]


@pytest.fixture
def sam_file(tmp_path: Path) -> Path:
    return write_sam_file(tmp_path / "sam.pth", build_small_encoder())


@pytest.fixture
def images(tmp_path: Path) -> TeacherImages:
    return find_teacher_images(write_images(tmp_path / "images", NAMES))


@pytest.fixture
def options(tmp_path: Path, sam_file: Path) -> EncodingOptions:
    return EncodingOptions(tmp_path / "cache", sam_file, batch_size=2, shard_size=2, num_threads=2)


def run(
    images: TeacherImages,
    options: EncodingOptions,
    devices: tuple[str, ...] = ("cpu",),
    messages: list[str] | None = None,
) -> EncodingSummary:
    said = [] if messages is None else messages
    callbacks = Callbacks(lambda estimate: None, lambda has_features: None, said.append)
    return cache_teacher(images, options, devices, callbacks)


def encode_directly(images: TeacherImages, position: int) -> Tensor:
    pixels = read_pixels(images[position], 128).pixels
    assert pixels is not None
    with torch.no_grad():
        features: Tensor = build_small_encoder()(pixels[None])[0]
    return features


def test_sizes_follow_from_the_file(sam_file: Path) -> None:
    teacher = load_teacher(sam_file)
    assert (teacher.model_size, teacher.embedding_shape) == (128, SHAPE)
    assert [block.window_size for block in teacher.encoder.blocks] == [3, 0]
    with pytest.raises(InputError, match="holds vit of 2 x 32, --teacher says vit_h"):
        load_teacher(sam_file, "vit_h")


def test_a_file_without_encoder(tmp_path: Path) -> None:
    torch.save({"neck.pos_embed": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"no image encoder of SAM in it .*sam_vit_h_4b8939"):
        load_teacher(tmp_path / "x.pth")


def test_features_are_the_encoders(images: TeacherImages, options: EncodingOptions) -> None:
    """In half precision, whatever the batch; the position table lies beside them."""
    summary = run(images, options)
    assert (summary.num_encoded, summary.num_skipped) == (5, 0)
    cache = TeacherCache(options.out, SHAPE)
    assert cache.find(images).tolist() == [0, 1, 2, 3, 4]
    for position in range(5):
        stored = cache.read(images[position])
        assert stored is not None and stored.dtype == torch.float16
        direct = encode_directly(images, position)
        torch.testing.assert_close(stored.float(), direct, rtol=1e-3, atol=1e-3)
    positions = cache.read_positions()
    assert positions is not None and torch.equal(positions, build_small_encoder().pos_embed)
    assert not list(options.out.glob(".*"))
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in options.out.iterdir())


def test_goes_on_after_a_stop(
    images: TeacherImages, options: EncodingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle: what was ready is kept and only the rest is computed."""
    computed: list[int] = []
    encode = teacher_encoding.encode_with_teacher

    def stop_at_second(*arguments: object) -> Tensor:
        computed.append(1)
        if len(computed) == 2:
            raise KeyboardInterrupt
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher_encoding, "encode_with_teacher", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(images, replace(options, shard_size=100))
    assert len(read_shard_index(options.out).keys) == 2
    summary = run(images, options)
    assert (summary.num_encoded, summary.estimate.num_left) == (3, 3)
    assert run(images, options).num_encoded == 0


def test_torn_shards_are_made_again(images: TeacherImages, options: EncodingOptions) -> None:
    run(images, options)
    shards = sorted(options.out.glob("features-*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:-100])
    shards[1].write_bytes(b"xx")
    with pytest.raises(InputError, match=r"not a whole file of features \(2 such"):
        TeacherCache(options.out, SHAPE)
    (options.out / ".part-000.tmp").write_text("left by a killed process")
    messages: list[str] = []
    run(images, options, messages=messages)
    assert len(messages) == 2 and "torn; its images are computed again" in messages[0]
    assert len(TeacherCache(options.out, SHAPE).find(images)) == 5
    assert not (options.out / ".part-000.tmp").exists()


@pytest.mark.slow
def test_two_processes_share_the_work(images: TeacherImages, options: EncodingOptions) -> None:
    summary = run(images, options, ("cpu", "cpu"))
    assert summary.num_encoded == 5
    index = read_shard_index(options.out)
    assert len(index.keys) == len(set(index.keys.tolist())) == 5
    stored = TeacherCache(options.out, SHAPE).read(images[3])
    assert stored is not None
    torch.testing.assert_close(stored.float(), encode_directly(images, 3), rtol=1e-3, atol=1e-3)


def test_children_do_their_parts(
    images: TeacherImages, options: EncodingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each process runs, here one after the other in this one."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    plan = teacher_encoding.plan_encoding(images, load_teacher(options.checkpoint), options)
    reports: queue.Queue[tuple[int, object]] = queue.Queue()
    for part in (0, 1):
        teacher_processes._run_child(plan, "cpu", part, 2, reports)
    said = [reports.get() for _ in range(7)]
    assert said == [(0, True)] * 3 + [(0, None)] + [(1, True)] * 2 + [(1, None)]
    assert len(read_shard_index(options.out).keys) == 5


def test_ranks_of_torchrun_take_disjoint_parts(
    images: TeacherImages, options: EncodingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        fresh = replace(options, out=options.out / rank)
        fresh.out.mkdir(parents=True)
        run(images, fresh)
    first, second = (read_shard_index(options.out / rank).keys.tolist() for rank in ("0", "1"))
    assert len(first) == 3 and sorted(first + second) == sorted(images.keys.tolist())


def test_a_late_rank_takes_its_own_part(images: TeacherImages, options: EncodingOptions) -> None:
    """It finds what the first rank has done already, and that moved its part once."""
    teacher = load_teacher(options.checkpoint)
    first = teacher_encoding.plan_encoding(images, teacher, options)
    teacher_encoding.encode_part(first, teacher, torch.device("cpu"), part=0, num_parts=2)
    late = teacher_encoding.plan_encoding(images, teacher, options)
    assert late.take_part(1, 2).keys.tolist() == images.keys[1::2].tolist()


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (CheckpointError("no such weights"), "no such weights"),
        (True, "cpu: its process ended with"),
    ],
)
def test_the_end_of_a_process_is_told(report: object, message: str) -> None:
    """An error that a child sends, or none because it was killed."""
    reports: queue.Queue[tuple[int, object]] = queue.Queue()
    reports.put((0, report))
    done: list[bool] = []
    with pytest.raises(OvsamError, match=message):
        teacher_processes._follow([SimpleNamespace(exitcode=-9)], ["cpu"], reports, done.append)
    assert done == [True] * (report is True)


def test_unreadable_images_are_recorded_once(options: EncodingOptions, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", NAMES)
    (folder / "b.jpg").write_bytes(b"not an image")
    images = find_teacher_images(folder)
    assert run(images, options).num_skipped == 1
    assert run(images, options).num_skipped == 1
    (line,) = (options.out / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == str(folder / "b.jpg")
    assert "not an image" in json.loads(line)["reason"]
    assert TeacherCache(options.out, SHAPE).find(images).tolist() == [0, 2, 3, 4]


def test_refuses_what_cannot_fit(
    images: TeacherImages, options: EncodingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=r"5 images, 0 of them cached; the others need .* MiB"):
        run(images, options)
    assert not options.out.exists()


def test_estimate_is_two_mebibytes_an_image() -> None:
    estimate = teacher_encoding.CacheEstimate(1000, 1000, 1000 * 2 * 2**20, 10 * 2**30)
    assert (
        "1,000 images" in estimate.describe()
        and "1.95 GiB, 10.00 GiB are free" in estimate.describe()
    )


def test_refuses_another_teacher(
    images: TeacherImages, options: EncodingOptions, tmp_path: Path
) -> None:
    run(images, options)
    with pytest.raises(InputError, match=r"holds features of .* in float32 .* in bfloat16"):
        run(images, replace(options, precision="bfloat16"))
    with pytest.raises(InputError, match=r"shape \(32, 8, 8\), expected .* \(256, 64, 64\)"):
        TeacherCache(options.out, (256, 64, 64))
    other = write_sam_file(tmp_path / "other.pth", build_small_encoder(dim=16))
    second = replace(options, out=tmp_path / "second", checkpoint=other)
    run(images, second)
    shutil.copy(next(second.out.glob("features-*")), options.out / "features-0.safetensors")
    with pytest.raises(InputError, match="keep the shards of one teacher in a folder"):
        TeacherCache(options.out, SHAPE)


@pytest.mark.parametrize("beside", [False, True])
def test_reads_the_originals_files(images: TeacherImages, tmp_path: Path, beside: bool) -> None:
    """In one folder under the image's stem, or beside the image."""
    folder = tmp_path / "sam_feat"
    folder.mkdir()
    place = images[2].path.parent if beside else folder
    features = torch.randn(SHAPE)
    torch.save(features, place / "c_vit_h_cache.pth")
    cache = TeacherCache(folder, SHAPE)
    assert cache.find(images).tolist() == [2]
    stored = cache.read(images[2])
    assert stored is not None and torch.equal(stored, features)
    assert cache.read(images[0]) is None and cache.read_positions() is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(1, 2, 3), r"c_vit_h_cache.pth: torch.float32 of shape \(1, 2, 3\), expected"),
        ({"features": torch.zeros(SHAPE)}, "holds a dict, expected one tensor of shape"),
        (b"torn", r"\(4 bytes\): torn or not a tensor file"),
        (SimpleNamespace(a=1), "torn or not a tensor file"),
    ],
)
def test_wrong_original_files(
    images: TeacherImages, tmp_path: Path, content: object, message: str
) -> None:
    path = tmp_path / "c_vit_h_cache.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=message):
        TeacherCache(tmp_path, SHAPE).read(images[2])


def test_no_cache_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make them with: ovsam train cache-teacher"):
        TeacherCache(tmp_path / "none", SHAPE)


def test_a_full_disk_leaves_no_part(tmp_path: Path) -> None:
    identity = teacher_cache.TeacherIdentity("vit_h", "0", "float32")
    with pytest.raises(OutputError, match="cannot be written"):
        teacher_cache.write_shard(tmp_path / "gone", {"a": torch.zeros(1)}, identity, 0)


def test_devices() -> None:
    assert parse_devices("cpu") == ("cpu",)
    assert parse_devices("cpu, cpu") == ("cpu", "cpu")
    with pytest.raises(InputError, match="expected auto, cpu, or GPU numbers"):
        parse_devices("gpu")
    with pytest.raises(InputError, match="GPU 99 is not there"):
        parse_devices("99")
