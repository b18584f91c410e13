"""When the network is compiled, for which steps, and what becomes of a compiler that fails."""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from small_model import SMALL

from ovsam_cli.labelling.compiling import compile_model, is_worth_compiling
from ovsam_cli.labelling.options import CompileMode
from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.inference import prepare_for_inference
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.model.tiny_build import TINY_CONFIG

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.mark.parametrize(
    ("mode", "device", "num_images", "num_prompts", "wanted"),
    [
        ("auto", CUDA, 100_000, 100_000, True),
        ("auto", CUDA, 8_000, 8_000 * 1024, True),  # a grid's points count
        ("auto", CUDA, 8_000, 8_000, False),
        ("auto", CPU, 100_000, 100_000, False),
        ("never", CUDA, 10**9, 10**9, False),
        ("always", CPU, 1, 1, True),
    ],
)
def test_long_runs_on_a_gpu_are_worth_it(
    mode: CompileMode, device: torch.device, num_images: int, num_prompts: int, wanted: bool
) -> None:
    found = is_worth_compiling(
        mode, device, "clip-resnet", num_images=num_images, num_prompts=num_prompts
    )
    assert found == wanted


def build(tmp_path: Path, on_message: Callable[[str], None] = lambda text: None) -> OVSAM:
    """Compiled for one image, and for two or six prompts."""
    torch.manual_seed(3)
    model = prepare_for_inference(build_ovsam(SMALL).eval().requires_grad_(False))
    compile_model(
        model,
        num_images=1,
        prompt_counts=(2, 6),
        cache_folder=tmp_path / "compiled",
        on_message=on_message,
    )
    return model


def make_boxes(count: int) -> ModelPrompts:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(1)) * 128
    return ModelPrompts(
        image_index=torch.zeros(count, dtype=torch.int64),
        point_coords=torch.zeros(count, 0, 2),
        point_labels=torch.zeros(count, 0, dtype=torch.int64),
        model_boxes_xyxy=corners.sort(dim=1).values.reshape(count, 4),
        has_box=torch.ones(count, dtype=torch.bool),
    )


def decode(model: OVSAM, num_images: int, num_prompts: int) -> torch.Tensor:
    pixels = torch.randn(num_images, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    features = model.encode_images(pixels, ((128, 128),) * num_images)
    return model.decode_masks(features, model.encode_prompts(make_boxes(num_prompts))).mask_logits


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "unset by the test")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")


def count_compiled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Have torch.compile give the function itself back; collects its calls."""
    calls: list[object] = []

    def compile_nothing(function: Callable[..., object], *, dynamic: bool) -> object:
        assert not dynamic

        def call(*args: object) -> object:
            calls.append(function)
            return function(*args)

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return calls


@torch.inference_mode()
def test_steps_of_other_sizes_run_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size alone decides: a run that goes on computes what the whole run would have."""
    calls = count_compiled(monkeypatch)
    model = build(tmp_path)
    decode(model, num_images=2, num_prompts=5)
    assert calls == []
    decode(model, num_images=1, num_prompts=5)
    assert len(calls) == 3  # trunk, neck, FPN
    decode(model, num_images=2, num_prompts=6)
    assert len(calls) == 4


@torch.inference_mode()
@pytest.mark.slow
def test_a_compiler_that_fails_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> object:
        raise RuntimeError("g++ is not there\nand a long trace")

    wanted = decode(build(tmp_path), num_images=2, num_prompts=2)  # an unfit number of images
    monkeypatch.setattr(torch, "compile", lambda function, *, dynamic: fail)
    messages: list[str] = []
    model = build(tmp_path, messages.append)
    decode(model, num_images=1, num_prompts=2)
    assert len(messages) == 2
    assert "RuntimeError: g++ is not there)" in messages[1]
    torch.testing.assert_close(decode(model, num_images=2, num_prompts=2), wanted)


@torch.inference_mode()
def test_out_of_memory_is_no_failure_to_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline answers it with smaller steps."""

    def run_out(*args: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda function, *, dynamic: run_out)
    messages: list[str] = []
    with pytest.raises(torch.OutOfMemoryError):
        decode(build(tmp_path, messages.append), num_images=1, num_prompts=2)
    assert len(messages) == 1


def test_the_cache_of_the_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    build(tmp_path, messages.append)
    assert str(tmp_path / "compiled") in messages[0]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    build(tmp_path, messages.append)
    assert "elsewhere" in messages[1]


def test_a_temporary_cache_is_not_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing PyTorch's compiler sets the variable, and timm imports it: ours was never used."""
    its_own = Path(tempfile.gettempdir()) / "torchinductor_me"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(its_own))
    build(tmp_path)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")


def test_tiny_has_the_same_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepare_for_inference(build_ovsam(TINY_CONFIG).eval())
    calls = count_compiled(monkeypatch)
    compile_model(
        model,
        num_images=1,
        prompt_counts=(2,),
        cache_folder=tmp_path,
        on_message=lambda text: None,
    )
    with torch.inference_mode():
        features = model.encode_images(torch.randn(1, 3, 512, 512), ((512, 512),))
        model.decode_masks(features, model.encode_prompts(make_boxes(2)))
    assert len(calls) == 5  # trunk, neck, FPN's place, fine neck, transformer


@pytest.mark.filterwarnings("ignore")
@torch.inference_mode()
def test_tracing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's tracer reads every part; what it makes of them is run without a compiler."""
    wanted = decode_plain(build(tmp_path))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    messages: list[str] = []
    found = decode(build(tmp_path, messages.append), num_images=1, num_prompts=2)
    assert len(messages) == 1, messages
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def decode_plain(model: OVSAM) -> torch.Tensor:
    """One image, two prompts, by a model that nothing is compiled of."""
    for part in (model.backbone, model.neck, model.fpn_neck, model.mask_decoder.mask_decoder):
        part.forward = part.forward.plain
    return decode(model, num_images=1, num_prompts=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@torch.inference_mode()
def test_compiled_equals_plain(tmp_path: Path) -> None:
    """With the real compiler; needs one for C++. The second model finds the first one's work."""
    wanted = decode_plain(build(tmp_path))
    messages: list[str] = []
    found = decode(build(tmp_path, messages.append), num_images=1, num_prompts=2)
    assert len(messages) == 1, messages
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert any((tmp_path / "compiled").rglob("*.so"))
