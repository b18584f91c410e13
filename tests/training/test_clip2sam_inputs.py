"""Where CLIP2SAM training starts: frozen parts from their files, the rest as published."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_model import SMALL

from ovsam_cli.errors import InputError, VocabularyError
from ovsam_cli.labelling.text_embeddings import TextEmbeddings
from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.config import PRESETS, OVSAMConfig
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.unpickling import compute_sha256
from ovsam_cli.training.clip2sam_inputs import StartModel, build_start_model, embed_vocabulary
from ovsam_cli.training.clip2sam_options import ModelSource
from ovsam_cli.vocabulary import Vocabulary, read_vocabulary

# A small trunk and neck around a decoder of SAM's size.
CONFIG = replace(SMALL, embed_dim=256, decoder_heads=8, decoder_mlp_dim=2048, trained_on=("cat",))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A trunk with its neck in the published training's layout, and a SAM file."""
    monkeypatch.setitem(PRESETS, "rn50x16", CONFIG)
    torch.manual_seed(1)
    donor = build_ovsam(replace(CONFIG, iou_head=True, num_point_masks=3)).state_dict()
    student = {
        key.replace(".", "_student.", 1): value
        for key, value in donor.items()
        if key.startswith(("backbone.", "neck."))
    }
    prefixes = {"pe.": "prompt_encoder.", "mask_decoder.mask_decoder.": "mask_decoder."}
    sam = {
        new + key.removeprefix(old): value
        for key, value in donor.items()
        for old, new in prefixes.items()
        if key.startswith(old)
    }
    torch.save({"state_dict": student}, tmp_path / "student.pth")
    torch.save(sam, tmp_path / "sam.pth")
    return {name: tmp_path / f"{name}.pth" for name in ("student", "sam")}


def start(files: dict[str, Path], **changes: bool) -> StartModel:
    student = files["student"]
    source = ModelSource("rn50x16", clip=student, sam2clip=student, sam=files["sam"], **changes)
    return build_start_model(source, 5, lambda text: None)


def read(files: dict[str, Path], name: str) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(files[name], weights_only=True)
    return content


@pytest.mark.parametrize("iou_head", [False, True])
def test_the_published_start(files: dict[str, Path], iou_head: bool) -> None:
    begun = start(files, iou_head=iou_head)
    state, sam = begun.model.state_dict(), read(files, "sam")
    student: dict[str, dict[str, torch.Tensor]] = torch.load(files["student"], weights_only=True)
    for key, value in student["state_dict"].items():
        assert torch.equal(state[key.replace("_student.", ".", 1)], value)
    assert torch.equal(
        state["pe.not_a_point_embed.weight"], sam["prompt_encoder.not_a_point_embed.weight"]
    )
    decoder = "mask_decoder.mask_decoder."
    tokens = state[f"{decoder}mask_tokens.weight"]
    assert torch.equal(tokens, sam["mask_decoder.mask_tokens.weight"][: 4 if iou_head else 1])
    assert (f"{decoder}iou_token.weight" in state) == iou_head
    assert begun.model.config.trained_on == () and begun.text_encoder is None
    assert begun.model.config.num_point_masks == (3 if iou_head else 0)


def test_what_starts_at_random(files: dict[str, Path]) -> None:
    """Xavier-uniform FPN without biases, Kaiming head, label token of N(0, 1); by the seed."""
    one, same = (start(files).model.state_dict() for _ in range(2))
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    weight = one["fpn_neck.lateral_convs.0.conv.weight"]
    bound = (6 / (weight.shape[0] + weight.shape[1])) ** 0.5
    assert 0.9 * bound < float(weight.abs().max()) <= bound
    assert not bool(one["fpn_neck.fpn_convs.1.conv.bias"].any())
    head = one["mask_decoder.roi_conv.0.conv.weight"]
    assert float(head.std()) == pytest.approx((2 / head.shape[0]) ** 0.5, rel=0.1)
    assert 0.8 < float(one["mask_decoder.label_token.weight"].std()) < 1.2


def make_start(config: OVSAMConfig) -> StartModel:
    model = OVSAM.__new__(OVSAM)
    torch.nn.Module.__init__(model)
    model.config = config
    return StartModel(model, "", {}, None, "")


def test_text_embeddings_of_a_file(tmp_path: Path) -> None:
    vocabulary = read_vocabulary("cat,dog,")
    array = np.zeros((2, 1, SMALL.text_dim), np.float32)
    array[..., 0] = 1
    file = tmp_path / "text.safetensors"
    TextEmbeddings(array, vocabulary.names, "hash", SMALL.text_tower).save(file)
    begun = make_start(SMALL)
    found = embed_vocabulary(begun, vocabulary, file, print)
    assert found.array.shape == (2, 1, SMALL.text_dim)
    assert found.text_hash == compute_sha256(file)
    with pytest.raises(VocabularyError, match="other names"):
        embed_vocabulary(begun, read_vocabulary("cat,cow,"), file, print)
    with pytest.raises(InputError, match=r"give --clip RN50x16\.pt or --text-embeddings"):
        embed_vocabulary(begun, vocabulary, None, print)
    assert embed_vocabulary(begun, Vocabulary("none", ()), None, print).array.shape == (0, 1, 384)
