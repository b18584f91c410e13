"""All stages together: results do not depend on company, nothing is lost, nothing grows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labeller_builders import build_small_labeller, prepare_all, read_options, write_records

from ovsam_cli.labelling import finishing, hand_over, pipeline, reading
from ovsam_cli.labelling.device_batch import iter_batch_outputs
from ovsam_cli.labelling.finishing import finish_chunk, join_image
from ovsam_cli.labelling.options import LabelOptions
from ovsam_cli.labelling.pipeline import label_batch, label_batches
from ovsam_cli.labelling.planner import ImageBatch, ReadOptions, plan_batches
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.labelling.upload import PixelSlots
from ovsam_cli.labelling.work_sizes import WorkSizes
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import ImageFeatures
from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptEmbeddings
from ovsam_cli.structures import Detections, ImageRecord, ImageResult

SIZES = [(60, 80), (90, 50), (128, 128), (30, 200), (64, 64), (70, 71), (40, 100)]
KINDS = ["bpnb", "m", "pp", "", "ab", "bbbbbbb", "n"]


@pytest.fixture
def labeller() -> Labeller:
    return build_small_labeller()


@pytest.fixture
def records(tmp_path: Path) -> tuple[ImageRecord, ...]:
    return write_records(tmp_path, SIZES)


def kinds_of(record: ImageRecord) -> str:
    return KINDS[(record.image_id - 1) % len(KINDS)]


def with_sizes(labeller: Labeller, *, images: int, prompts: int = 64) -> Labeller:
    options = replace(labeller.options, batch_size=images, prompts_per_batch=prompts)
    return replace(labeller, options=options)


class Run:
    """One run over records, with everything it said and wrote."""

    def __init__(self) -> None:
        self.results: list[ImageResult] = []
        self.messages: list[str] = []

    def start(
        self,
        labeller: Labeller,
        records: Sequence[ImageRecord],
        options: ReadOptions | None = None,
        write: Callable[[ImageResult], None] | None = None,
    ) -> dict[str, ImageResult]:
        label_batches(
            labeller,
            plan_batches(
                records, lambda r: len(kinds_of(r)), batch_size=labeller.work_sizes().images
            ),
            options or read_options(labeller, kinds_of),
            finish=lambda image, result: None,
            write=write or self.results.append,
            on_message=self.messages.append,
        )
        return {result.record.file_name: result for result in self.results}


def assert_same_objects(left: Detections, right: Detections) -> None:
    """Batches of another size may change a float's last bits, and nothing else."""
    assert left.prompt_ids == right.prompt_ids
    assert left.segmentations == right.segmentations
    assert left.category_ids.tolist() == right.category_ids.tolist()
    np.testing.assert_allclose(left.scores, right.scores, rtol=1e-4)
    np.testing.assert_array_equal(left.boxes_xyxy, right.boxes_xyxy)


def label_alone(labeller: Labeller, records: Sequence[ImageRecord]) -> dict[str, Detections]:
    """Every prompt of every image in a call of its own."""
    single = with_sizes(labeller, images=1, prompts=1)
    images = prepare_all(records, read_options(labeller, kinds_of))
    found = [label_batch(single, ImageBatch.of([image])) for image in images]
    assert all(isinstance(one, Detections) for (one,) in found)
    return {r.file_name: one for r, (one,) in zip(records, found, strict=True)}  # type: ignore[misc]


@pytest.mark.parametrize(("images", "prompts"), [(1, 64), (3, 5), (8, 64), (2, 1)])
def test_company_does_not_matter(
    labeller: Labeller, records: tuple[ImageRecord, ...], images: int, prompts: int
) -> None:
    alone = label_alone(labeller, records)
    found = Run().start(with_sizes(labeller, images=images, prompts=prompts), records)
    assert found.keys() == alone.keys()
    assert sum(len(one) for one in alone.values()) > 10
    for name, result in found.items():
        assert result.detections is not None
        assert_same_objects(result.detections, alone[name])
        assert result.status == ("ok" if len(alone[name]) else "empty")


def test_filled_batches_and_chunks_give_the_same(
    labeller: Labeller, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA: few numbers of images and of prompts reach the network."""
    alone = label_alone(labeller, records)
    shapes: list[tuple[str, int]] = []
    model = labeller.model
    encode, embed = model.encode_images, model.encode_prompts
    monkeypatch.setattr(
        model, "encode_images", lambda p, hw: shapes.append(("I", len(p))) or encode(p, hw)
    )
    monkeypatch.setattr(
        model, "encode_prompts", lambda p: shapes.append(("B", len(p.has_box))) or embed(p)
    )
    images = prepare_all(records, read_options(labeller, kinds_of))
    sizes = WorkSizes(images=8, prompts=32, fixed=True)
    uploaded = [torch.tensor(image.input_rgb) for image in images]
    with torch.inference_mode():
        outputs = list(iter_batch_outputs(labeller, ImageBatch.of(images), uploaded, sizes))
    assert {n for kind, n in shapes if kind == "I"} == {8}
    assert {n for kind, n in shapes if kind == "B"} <= {2, 8, 32}
    parts = [part for output in outputs for part in finish_chunk(labeller, output)]
    for place, image in enumerate(images):
        found = join_image(labeller, image, [part for part in parts if part.image == place])
        assert isinstance(found, Detections)
        assert_same_objects(found, alone[image.record.file_name])


def test_no_prompts_no_network(
    labeller: Labeller, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(type(labeller.model), "encode_images")
    found = Run().start(labeller, records, read_options(labeller, lambda record: ""))
    assert {result.status for result in found.values()} == {"empty"}


def test_a_bad_image_is_recorded_and_the_others_go_on(
    labeller: Labeller, records: tuple[ImageRecord, ...]
) -> None:
    records[2].path.write_bytes(records[2].path.read_bytes()[:200])
    records[5].path.unlink()
    found = Run().start(with_sizes(labeller, images=3), records)
    assert {n: r.reason for n, r in found.items() if r.status == "failed"} == {
        "2.png": "truncated",
        "5.png": "not_found",
    }
    assert len(found) == len(records)


def test_logits_that_are_no_numbers_fail_their_image_only(
    labeller: Labeller, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, decode = labeller.model, labeller.model.decode_masks
    (bad,) = prepare_all(records[5:6], read_options(labeller, kinds_of))

    def spoil(features: ImageFeatures, embeddings: PromptEmbeddings) -> DecodedMasks:
        decoded = decode(features, embeddings)
        is_bad = torch.tensor([hw == bad.geometry.input_hw for hw in features.input_hw])
        decoded.mask_logits[is_bad[embeddings.prompts.image_index]] = torch.nan
        return decoded

    monkeypatch.setattr(model, "decode_masks", spoil)
    found = Run().start(with_sizes(labeller, images=8), records)
    failed = {name for name, result in found.items() if result.status == "failed"}
    assert failed == {"5.png"}
    assert found["5.png"].reason == "not_finite"


# --- memory


class ScarceMemory:
    """Raises `error` where more than so many images are encoded, or prompts decoded, at once."""

    def __init__(
        self, labeller: Labeller, patch: pytest.MonkeyPatch, *, images: int, prompts: int
    ) -> None:
        self.encoded: list[int] = []
        self.decoded: list[int] = []
        model = labeller.model
        encode, embed = model.encode_images, model.encode_prompts
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

        def encode_images(pixels: torch.Tensor, input_hw: object) -> object:
            self.encoded.append(len(pixels))
            if len(pixels) > images:
                raise error
            return encode(pixels, input_hw)  # type: ignore[arg-type]

        def encode_prompts(prompts_: ModelPrompts) -> object:
            self.decoded.append(len(prompts_.has_box))
            if len(prompts_.has_box) > prompts:
                raise error
            return embed(prompts_)

        patch.setattr(model, "encode_images", encode_images)
        patch.setattr(model, "encode_prompts", encode_prompts)


@pytest.mark.parametrize(("images", "prompts"), [(8, 2), (2, 64), (1, 1)])
def test_out_of_memory_loses_no_image(
    labeller: Labeller,
    records: tuple[ImageRecord, ...],
    monkeypatch: pytest.MonkeyPatch,
    images: int,
    prompts: int,
) -> None:
    alone = label_alone(labeller, records)
    memory = ScarceMemory(labeller, monkeypatch, images=images, prompts=prompts)
    run = Run()
    found = run.start(with_sizes(labeller, images=8), records)
    assert len(run.results) == len(records)  # none twice
    for name, result in found.items():
        assert result.detections is not None
        assert_same_objects(result.detections, alone[name])
    assert len(run.messages) == 1 and "--batch-size" in run.messages[0]
    too_many = [n for n in memory.encoded if n > images]
    assert too_many == sorted(too_many, reverse=True) and len(too_many) <= 3


def test_what_never_fits_is_recorded(
    labeller: Labeller, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ScarceMemory(labeller, monkeypatch, images=8, prompts=0)
    run = Run()
    found = run.start(with_sizes(labeller, images=4), records)
    assert {n for n, r in found.items() if r.reason != "out_of_memory"} == {"3.png"}  # no prompts
    assert "not enough memory on cpu" in found["0.png"].message
    assert len(run.messages) == 1


def test_no_memory_for_masks_fails_the_image(
    labeller: Labeller, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> object:
        raise MemoryError

    monkeypatch.setattr(finishing, "postprocess", full)
    found = Run().start(labeller, records)
    assert {r.reason for r in found.values() if r.status == "failed"} == {"out_of_memory"}


def test_host_memory_is_that_of_the_slots_however_many_images(
    labeller: Labeller, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts what is alive: pixels in slots, logits under way, results that wait."""
    alive = most = begun = 0
    lock = threading.Lock()
    prepare = reading.prepare_image

    def count_prepared(*arguments: object, **options: object) -> object:
        nonlocal alive, most, begun
        with lock:
            begun += 1
            alive += 1
            most = max(most, alive)
        return prepare(*arguments, **options)  # type: ignore[arg-type]

    class Counting(PixelSlots):
        def upload(self, images: object, slots: Sequence[int]) -> object:  # type: ignore[override]
            nonlocal alive
            with lock:
                alive -= len(slots)
            return super().upload(images, slots)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "prepare_image", count_prepared)
    monkeypatch.setattr(pipeline, "PixelSlots", Counting)
    many = [ImageRecord(records[n % len(records)].path, f"{n}.png", n + 1) for n in range(30)]
    labeller = with_sizes(labeller, images=2)
    assert len(Run().start(labeller, many)) == begun == 30
    assert most <= 2 * (1 + pipeline.BATCHES_AHEAD) + reading.count_readers(labeller.device)


# --- stopping


def left_threads() -> set[str]:
    names = {thread.name.split("_")[0] for thread in threading.enumerate()}
    return names & {"read", "finish", "write"}


@pytest.mark.parametrize("stage", ["read", "device", "finish", "write"])
def test_an_error_in_any_stage_ends_the_run(
    labeller: Labeller,
    records: tuple[ImageRecord, ...],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError(stage)

    write: Callable[[ImageResult], None] | None = None
    if stage == "read":
        monkeypatch.setattr(reading, "prepare_image", fail)
    elif stage == "device":
        monkeypatch.setattr(labeller.model, "decode_masks", fail)
    elif stage == "finish":
        monkeypatch.setattr(finishing, "postprocess", fail)
    else:
        write = fail
    with pytest.raises(ZeroDivisionError, match=stage):
        Run().start(labeller, records, write=write)
    assert left_threads() == set()


def test_ctrl_c_inside_the_network_keeps_what_is_done(
    labeller: Labeller, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = labeller.model.encode_images, 0
    run = Run()

    def encode_images(pixels: torch.Tensor, input_hw: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return encode(pixels, input_hw)  # type: ignore[arg-type]

    monkeypatch.setattr(labeller.model, "encode_images", encode_images)
    with pytest.raises(KeyboardInterrupt):
        run.start(labeller, records)
    assert calls == 4 and left_threads() == set()
    assert len(run.results) <= 3 and all(r.status == "ok" for r in run.results)


def test_threads_wait_for_room(
    labeller: Labeller, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for a single chunk's logits all results still come."""
    monkeypatch.setattr(hand_over, "MAX_BYTES_ON_CPU", 1)
    monkeypatch.setattr(hand_over, "MAX_RESULT_BYTES", 1)
    assert len(Run().start(with_sizes(labeller, images=3, prompts=2), records)) == len(records)


# --- grid


def test_grid_of_a_batch_equals_one_image_at_a_time(
    records: tuple[ImageRecord, ...],
) -> None:
    from ovsam_cli.labelling.options import GridOptions

    options = LabelOptions(
        grid=GridOptions(points_per_side=4, crop_layers=1), min_stability=0.0, top_k=1
    )
    labeller = build_small_labeller(options)
    wanted = read_options(labeller, None)
    images = prepare_all(records[:3], wanted)
    alone = [label_batch(labeller, ImageBatch.of([image]))[0] for image in images]
    run = Run()
    found = run.start(with_sizes(labeller, images=3, prompts=7), records[:3], wanted)
    assert sum(len(one) for one in alone if isinstance(one, Detections)) >= 3
    for record, one in zip(records, alone, strict=False):
        detections = found[record.file_name].detections
        assert isinstance(one, Detections) and detections is not None
        assert_same_objects(detections, one)


def test_only_survivors_are_named_and_encoded(
    records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all points of the grid every one is decoded, but only distinct masks go further."""
    from ovsam_cli.labelling import grid_batch, postprocess
    from ovsam_cli.labelling.options import GridOptions

    labeller = build_small_labeller(
        LabelOptions(grid=GridOptions(points_per_side=6), min_stability=0.0, prompts_per_batch=10)
    )
    counts = {"decoded": 0, "named": 0, "encoded": 0, "kept": 0}
    keep, classify = grid_batch.keep_distinct, grid_batch.classify
    decode, encode = grid_batch.decode, postprocess.masks.encode_mask_logits

    def count_decoded(labeller: Labeller, features: object, prompts: ModelPrompts) -> object:
        counts["decoded"] += len(prompts.has_box)
        return decode(labeller, features, prompts)  # type: ignore[arg-type]

    def count_kept(*arguments: object) -> object:
        found = keep(*arguments)  # type: ignore[arg-type]
        counts["kept"] += len(found.rows)
        return found

    def count_named(
        labeller: Labeller, features: object, masks: torch.Tensor, prompts: object
    ) -> torch.Tensor:
        counts["named"] += len(masks)
        return classify(labeller, features, masks, prompts)  # type: ignore[arg-type]

    def count_encoded(mask_logits: np.ndarray, *rest: object, compiled: bool) -> object:
        counts["encoded"] += len(mask_logits)
        return encode(mask_logits, *rest, compiled=compiled)  # type: ignore[arg-type]

    monkeypatch.setattr(grid_batch, "decode", count_decoded)
    monkeypatch.setattr(grid_batch, "keep_distinct", count_kept)
    monkeypatch.setattr(grid_batch, "classify", count_named)
    monkeypatch.setattr(postprocess.masks, "encode_mask_logits", count_encoded)
    (image,) = prepare_all(records[:1], read_options(labeller, None))
    (found,) = label_batch(labeller, ImageBatch.of([image]))
    assert isinstance(found, Detections) and len(found) > 0
    assert counts["decoded"] == 36
    assert counts["kept"] == counts["named"] < 36
    assert len(found) <= counts["encoded"] <= counts["kept"]
