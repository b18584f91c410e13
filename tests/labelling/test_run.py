"""A run that stops in the middle and goes on gives the same file as one that does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovsam_cli.errors import OutputError
from ovsam_cli.labelling.options import LabelOptions, LabelRequest
from ovsam_cli.labelling.plan import plan_run
from ovsam_cli.labelling.run import label_images, open_run
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.structures import ImageResult


@pytest.fixture
def request_of(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LabelRequest:
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))
    prompts = tmp_path / "prompts.json"
    images = [
        {"file_name": "a.jpg", "boxes": [[5, 5, 40, 50]]},
        {"file_name": "more/b.png", "points": [[25, 45], [10, 10]]},
    ]
    prompts.write_text(json.dumps({"images": images}))
    return LabelRequest(
        images=(str(photos),),
        vocabulary="cat, dog, zebra",
        out=tmp_path / "out",
        prompts=str(prompts),
        model=str(checkpoint),
        devices="cpu",
        options=LabelOptions(top_k=2),
    )


def test_interrupted_run_gives_the_same_bytes(request_of: LabelRequest, tmp_path: Path) -> None:
    label_images(request_of)
    whole = (tmp_path / "out" / "annotations.json").read_bytes()
    out = tmp_path / "interrupted"
    again = LabelRequest(**{**_fields(request_of), "out": out})

    def stop(result: ImageResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_images(again, on_image_done=stop)
    assert not (out / "annotations.json").exists()
    seen: list[str] = []  # b.png has more prompts and came first
    summary = label_images(again, on_image_done=lambda result: seen.append(result.record.file_name))
    assert seen == ["a.jpg"]
    assert summary.num_labelled_now == 1 and summary.num_images == 2
    assert (out / "annotations.json").read_bytes() == whole


def test_a_batch_that_was_stopped_is_computed_whole_again(
    request_of: LabelRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are cut from all images, so that a resumed run has the same numbers to the last bit.

    Cut from those left over, the batches of a resumed run had other images in them, and scores
    differed in their last digits.
    """
    sizes: list[int] = []
    encode = OVSAM.encode_images

    def count(self: OVSAM, pixels: torch.Tensor, input_hw: object) -> object:
        sizes.append(len(pixels))
        return encode(self, pixels, input_hw)  # type: ignore[arg-type]

    monkeypatch.setattr(OVSAM, "encode_images", count)
    in_twos = replace(request_of, options=replace(request_of.options, batch_size=2))
    label_images(in_twos)
    whole = (tmp_path / "out" / "annotations.json").read_bytes()
    again = replace(in_twos, out=tmp_path / "interrupted")

    def stop(result: ImageResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_images(again, on_image_done=stop)
    seen: list[str] = []
    summary = label_images(again, on_image_done=lambda result: seen.append(result.record.file_name))
    assert seen == ["a.jpg"] and summary.num_labelled_now == 1
    assert sizes == [2, 2, 2]
    assert (again.out / "annotations.json").read_bytes() == whole


def test_files_of_a_finished_run_are_left_alone(request_of: LabelRequest) -> None:
    """They are written again only where they were changed, or would be others now."""
    first = label_images(request_of)
    paths = [request_of.out / name for name in ("annotations.json", "errors.jsonl", "run.json")]
    contents, files = [path.read_bytes() for path in paths], [path.stat().st_ino for path in paths]
    again = label_images(request_of)
    assert (again.num_images, again.coco) == (first.num_images, first.coco)
    assert again.num_labelled_now == 0
    assert [path.stat().st_ino for path in paths] == files
    paths[0].write_bytes(b"changed")
    label_images(request_of)
    assert paths[0].read_bytes() == contents[0]
    without_masks = replace(request_of, options=replace(request_of.options, masks="none"))
    label_images(without_masks)
    assert b"segmentation" not in paths[0].read_bytes()
    (request_of.out / ".ovsam" / "finished.json").write_text("{}")
    label_images(request_of)
    assert paths[0].read_bytes() == contents[0]


def test_the_same_command_of_a_finished_run_loads_no_model(
    request_of: LabelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a file that results come from has changed since, or something else is asked for."""
    label_images(request_of)
    with monkeypatch.context() as without:
        without.setattr("ovsam_cli.labelling.run.open_run", None)
        assert label_images(request_of).num_images == 2
        for other in (
            replace(request_of, restart=True),
            replace(request_of, retry_failed=True),
            replace(request_of, vocabulary="cat, dog, horse"),
            replace(request_of, options=replace(request_of.options, num_previews=1)),
        ):
            with pytest.raises(TypeError):
                label_images(other)
        Path(request_of.model).touch()
        with pytest.raises(TypeError):
            label_images(request_of)
    label_images(request_of)
    with monkeypatch.context() as without:
        without.setattr("ovsam_cli.labelling.run.open_run", None)
        assert label_images(request_of).num_labelled_now == 0


def test_one_writer_a_folder(request_of: LabelRequest) -> None:
    plan = plan_run(request_of)
    with open_run(plan, on_message=lambda text: None):
        pass
    from ovsam_cli.labelling.run_folder import RunLock

    with RunLock.acquire(request_of.out), pytest.raises(OutputError, match="another run"):
        label_images(request_of)


def _fields(request: LabelRequest) -> dict[str, object]:
    return {name: getattr(request, name) for name in LabelRequest.__slots__}
