"""Scores while training: kept trunk maps, whose trunk they are of, and weights that are lent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from scene_builders import write_scenes
from small_model import SMALL
from torch import Tensor

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.datasets import InstanceDataset, InstanceImage
from ovsam_cli.evaluation.protocol import Answers
from ovsam_cli.masks import decode_mask, encode_mask
from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.structures import Rle
from ovsam_cli.training import validation
from ovsam_cli.training.validation import (
    ImageEncoder,
    build_validation,
    compute_trunk_fingerprint,
    score_masks,
)


def build_model(seed: int = 3, config: OVSAMConfig = SMALL) -> OVSAM:
    torch.manual_seed(seed)
    return build_ovsam(config).eval()


@pytest.fixture(scope="module")
def model() -> OVSAM:
    return build_model()


@pytest.fixture
def dataset(tmp_path: Path) -> InstanceDataset:
    return write_scenes(tmp_path / "scenes", num_images=2)


def encode(encoder: ImageEncoder, image: InstanceImage) -> Tensor:
    with torch.inference_mode():
        return encoder.encode_image(image)[0].image_embeddings


def forbid_computing(encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("maps are computed again")

    monkeypatch.setattr(encoder, "_compute_maps", fail)


def test_features_are_those_of_the_model(model: OVSAM, dataset: InstanceDataset) -> None:
    features, geometry = ImageEncoder(model, None).encode_image(dataset.images[0])
    assert geometry.original_hw == (128, 160)
    assert geometry.input_hw == (102, 128)  # 102.4 rounded
    assert geometry.model_size == SMALL.model_size
    assert features.input_hw == (geometry.input_hw,)
    assert features.image_embeddings.shape == (1, SMALL.embed_dim, 8, 8)
    assert features.fine_features is None


def test_kept_maps_give_the_same_features(
    model: OVSAM, dataset: InstanceDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "maps"
    expected = encode(ImageEncoder(model, None), dataset.images[0])
    kept = encode(ImageEncoder(model, folder), dataset.images[0])
    assert (kept - expected).abs().max() < 1e-2 * expected.abs().max()  # half precision
    again = ImageEncoder(model, folder)
    forbid_computing(again, monkeypatch)
    torch.testing.assert_close(encode(again, dataset.images[0]), kept, rtol=0, atol=0)
    with pytest.raises(AssertionError, match="computed again"):
        encode(again, dataset.images[1])


def test_maps_of_another_trunk_are_not_read(
    model: OVSAM, dataset: InstanceDataset, tmp_path: Path
) -> None:
    folder = tmp_path / "maps"
    encode(ImageEncoder(model, folder), dataset.images[0])
    other = build_model(seed=4)
    expected = encode(ImageEncoder(other, tmp_path / "fresh"), dataset.images[0])
    found = encode(ImageEncoder(other, folder), dataset.images[0])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(list(folder.iterdir())) == 2


def test_equal_names_in_two_folders_are_two_images(model: OVSAM, tmp_path: Path) -> None:
    first = write_scenes(tmp_path / "first", num_images=1).images[0]
    second = write_scenes(tmp_path / "second", num_images=1, size=160).images[0]
    assert first.path.name == second.path.name
    encoder = ImageEncoder(model, tmp_path / "maps")
    assert (encode(encoder, first) - encode(encoder, second)).abs().max() > 0


def test_fingerprint_is_of_the_trunk_and_its_input_alone(model: OVSAM) -> None:
    fingerprint = compute_trunk_fingerprint(model)
    assert len(fingerprint) == 64
    assert compute_trunk_fingerprint(build_model()) == fingerprint
    head = build_model()
    with torch.no_grad():
        next(head.neck.parameters()).add_(1.0)
    assert compute_trunk_fingerprint(head) == fingerprint
    trunk = build_model()
    with torch.no_grad():
        list(trunk.backbone.parameters())[-1].view(-1)[-1] += 1e-3
    assert compute_trunk_fingerprint(trunk) != fingerprint
    other_input = build_model(config=replace(SMALL, pixel_mean=(1.0, 2.0, 3.0)))
    assert compute_trunk_fingerprint(other_input) != fingerprint
    assert compute_trunk_fingerprint(build_model().bfloat16()) != fingerprint


def shift(segmentation: Rle, columns: int) -> Rle:
    return encode_mask(np.roll(decode_mask(segmentation), columns, axis=1))


@pytest.mark.parametrize(("columns", "low", "high"), [(0, 1.0, 1.0), (1, 0.8, 0.99), (70, 0, 0.5)])
def test_scores_are_mean_ious(
    model: OVSAM,
    dataset: InstanceDataset,
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    low: float,
    high: float,
) -> None:
    truth = [one for image in dataset.images for one in image.instances]

    def answer(*arguments: object) -> Answers:
        (image,) = cast("list[InstanceImage]", arguments[2])
        shifted = tuple(shift(one.segmentation, columns) for one in image.instances)
        return Answers(shifted, np.full(len(shifted), -1))

    monkeypatch.setattr(validation, "answer_images", answer)
    encode_image = ImageEncoder(model, None).encode_image
    scores = score_masks(model, encode_image, dataset.images, "box").scores
    assert low <= scores["all"] <= high
    areas = np.array([one.area for one in truth])  # a bar is small, a disc is medium
    assert (areas < 32**2).any() and (areas >= 32**2).any()
    assert np.isfinite([scores["small"], scores["medium"]]).all()
    assert np.isnan(scores["large"])


def test_validation_scores_given_weights_and_gives_back_its_own(
    model: OVSAM, dataset: InstanceDataset, tmp_path: Path
) -> None:
    trained = build_model()
    parts = torch.nn.ModuleDict({"neck": trained.neck, "mask_decoder": trained.mask_decoder})
    own = {key: value.clone() for key, value in parts.state_dict().items()}
    validate = build_validation(
        trained, parts, {"a": dataset, "b": dataset}, tmp_path / "maps", max_images=1
    )
    scores = validate(own).scores
    for name in "ab":
        for kind in ("box", "center"):
            assert 0.0 <= scores[f"{name} {kind} all"] <= 1.0
    assert scores["score"] == (scores["a box all"] + scores["a center all"]) / 2
    assert len(list((tmp_path / "maps").rglob("*.pt"))) == 1  # max_images
    changed = {key: torch.zeros_like(value) for key, value in own.items()}
    assert validate(changed).scores["score"] != scores["score"]
    for key, value in parts.state_dict().items():
        torch.testing.assert_close(value, own[key], rtol=0, atol=0)
    assert validate(own).scores == pytest.approx(scores, rel=0, abs=0, nan_ok=True)


def test_bad_images_are_skipped_and_told_once(tmp_path: Path) -> None:
    """One that could not be read, or was of another size, ended the whole run."""
    trained = build_model()
    dataset = write_scenes(tmp_path / "scenes", num_images=3)
    dataset.images[0].path.write_bytes(b"no image")
    Image.new("RGB", (9, 9)).save(dataset.images[2].path)
    validate = build_validation(
        trained, trained.neck, {"a": dataset}, tmp_path / "maps", max_images=3
    )
    own = {key: value.clone() for key, value in trained.neck.state_dict().items()}
    found = validate(own)
    assert [one.path for one in found.skipped] == [dataset.images[row].path for row in (0, 2)]
    assert found.skipped[1].reason.startswith("validation: (9, 9) pixels, its annotations say")
    good = build_validation(trained, trained.neck, {"a": only(dataset, 1)}, None, max_images=3)(own)
    assert found.scores["score"] == pytest.approx(good.scores["score"], abs=0.02)  # half precision
    assert validate(own).skipped == ()
    with pytest.raises(InputError, match=r"none of 1 images to validate on can be read; the first"):
        build_validation(trained, trained.neck, {"a": only(dataset, 0)}, None, max_images=1)(own)


def only(dataset: InstanceDataset, row: int) -> InstanceDataset:
    return replace(dataset, images=dataset.images[row : row + 1])


def test_own_weights_come_back_after_an_error(
    dataset: InstanceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = build_model()
    own = {key: value.clone() for key, value in trained.neck.state_dict().items()}

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(validation, "score_masks", fail)
    validate = build_validation(trained, trained.neck, {"a": dataset}, None, max_images=1)
    with pytest.raises(RuntimeError, match="no memory"):
        validate({key: torch.zeros_like(value) for key, value in own.items()})
    for key, value in trained.neck.state_dict().items():
        torch.testing.assert_close(value, own[key], rtol=0, atol=0)
