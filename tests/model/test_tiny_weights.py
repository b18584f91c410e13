"""The shipped weights: what they are, and that they do what the model card says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ovsam_cli.model.checkpoint as checkpoint
from ovsam_cli.evaluation.baselines import draw_baseline
from ovsam_cli.evaluation.datasets import InstanceDataset, InstanceImage, read_instances
from ovsam_cli.evaluation.metrics import compute_ious
from ovsam_cli.evaluation.protocol import Naming, PromptKind, answer_images
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.labelling.score_calibration import read_calibration
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.minilm import MiniLmTextEncoder, read_name_vectors
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.text_encoder import PLAIN_TEMPLATES
from ovsam_cli.model.tiny_regions import TinyBackbone
from ovsam_cli.structures import ImageGeometry
from ovsam_cli.vocabulary import normalize_name, read_vocabulary

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "ovsam_cli" / "weights" / "tiny.safetensors"
PINNED = [-0.2605, 0.187, 1.2185, 0.54, 1.4568, 2.4084]


@pytest.fixture(scope="module")
def model() -> OVSAM:
    return checkpoint.load_model("tiny", device=torch.device("cpu")).model


@pytest.fixture(scope="module")
def dataset() -> InstanceDataset:
    return read_instances(ROOT / "examples" / "scenes_truth.json", ROOT / "examples")


def encode(model: OVSAM, image: InstanceImage) -> tuple[ImageFeatures, ImageGeometry]:
    config = model.config
    pixels, geometry = preprocess(
        read_image(image.path).rgb,
        model_size=config.model_size,
        mean=config.pixel_mean,
        std=config.pixel_std,
    )
    return model.encode_images(torch.from_numpy(pixels)[None], [geometry.input_hw]), geometry


def test_weights_fit_into_the_wheel() -> None:
    assert WEIGHTS.stat().st_size < 30e6


def test_scores_are_calibrated() -> None:
    """The temperature beside the weights is for exactly these, and `ovsam label` takes it."""
    loaded = checkpoint.load_model("tiny", device=torch.device("cpu"))
    found = read_calibration(loaded.paths, loaded.weights_sha256)
    assert found is not None
    recorded = ROOT / "benchmarks" / "results" / "tiny-calibration-photos-box-2026-11-23.json"
    fitted = json.loads(recorded.read_text())["temperature"]
    assert found.temperatures == {"auto": pytest.approx(fitted, abs=1e-4)}


def test_trunk_is_the_variant_it_should_be(model: OVSAM) -> None:
    """Pinned on a synthetic picture: a wrong variant or padding changes every logit."""
    y, x = np.mgrid[:224, :224]
    rgb = np.stack([x, y, (x + y) / 2], axis=0) / 112.0 - 1.0
    backbone = model.backbone
    assert isinstance(backbone, TinyBackbone)
    with torch.inference_mode():
        maps = backbone(torch.from_numpy(rgb.astype(np.float32))[None])
        logits = backbone.imagenet_logits(maps[-1])[0]
    torch.testing.assert_close(logits[:6], torch.tensor(PINNED), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "least"), [("box", 0.75), ("center", 0.6)])
def test_masks_of_the_examples(
    model: OVSAM, dataset: InstanceDataset, kind: PromptKind, least: float
) -> None:
    truth = [one.segmentation for image in dataset.images for one in image.instances]
    answers = answer_images(model, lambda image: encode(model, image), dataset.images, kind)
    ious = compute_ious(answers.segmentations, truth)
    assert float(ious.mean()) > least
    if kind == "box":
        ellipses = compute_ious([draw_baseline(one, "ellipse") for one in truth], truth)
        assert float(ious.mean()) > float(ellipses.mean()) + 0.08


def test_names_of_the_examples(model: OVSAM, dataset: InstanceDataset) -> None:
    """Among all demo names; saying always the commonest would be right in one of ten."""
    names = [category.name for category in read_vocabulary("demo").categories]
    trained = {normalize_name(name) for name in model.config.trained_on}
    kind = torch.tensor([1 if normalize_name(name) in trained else 2 for name in names])
    encoder = MiniLmTextEncoder(name_vectors=read_name_vectors(), device=torch.device("cpu"))
    rows = {number: names.index(name) for number, name in dataset.category_names.items()}
    config = model.config
    fusion = Fusion(category_kind=kind, alpha=config.alpha, beta=config.beta)
    naming = Naming(encoder.encode_names(names, PLAIN_TEMPLATES)[:, None], rows, fusion)
    answers = answer_images(
        model, lambda image: encode(model, image), dataset.images, "box", naming=naming
    )
    assert float((answers.ranks < 5).mean()) > 0.4
