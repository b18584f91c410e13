"""Compiling the network, where a run is long enough to win back the minutes that takes.

What is compiled is decided by the whole plan, never by what is left of it, and by the size of a
step, never by the order of steps: a run that is stopped and goes on computes the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ovsam_cli.labelling.options import CompileMode
from ovsam_cli.model.config import TrunkName
from ovsam_cli.model.mask_decoder import MaskDecoder
from ovsam_cli.model.ovsam import OVSAM

LONG_RUN_SECONDS = 300.0
# Seconds an image and a prompt on a large GPU without compiling: predicted from operations and
# bytes, not measured; the order of magnitude decides.
GPU_SECONDS: dict[TrunkName, tuple[float, float]] = {
    "clip-resnet": (8.5e-3, 4e-5),
    "efficientnet-lite0": (2e-3, 2e-5),
}
Message = Callable[[str], None]


def is_worth_compiling(
    mode: CompileMode, device: torch.device, trunk: TrunkName, *, num_images: int, num_prompts: int
) -> bool:
    """Whether to compile: `auto` does so on CUDA, for more than five minutes of planned work.

    Args:
        mode: what the user asked for.
        device: where the network runs.
        trunk: which network.
        num_images: images to encode in the whole run, crops included.
        num_prompts: prompts to decode in the whole run, points of the grid included.
    """
    if mode != "auto":
        return mode == "always"
    an_image, a_prompt = GPU_SECONDS[trunk]
    seconds = num_images * an_image + num_prompts * a_prompt
    return device.type == "cuda" and seconds > LONG_RUN_SECONDS


def compile_model(
    model: OVSAM,
    *,
    num_images: int,
    prompt_counts: Sequence[int],
    cache_folder: Path,
    on_message: Message,
) -> None:
    """Compile the image encoder and the mask decoder of a model for steps of given sizes.

    The work is done when the first step of each kind comes. Other sizes run as they are. Should
    the compiler fail, that is said once and everything runs as it is.

    Args:
        model: ready for inference; its parts' `forward` is replaced.
        num_images: images of an encoder step.
        prompt_counts: prompts of the decoder steps to compile for.
        cache_folder: for what was compiled, so that the next run has it; a folder that the user
            has set for PyTorch stays.
        on_message: told what happens, for a person.
    """
    on_message(
        "compiling the network: the first images take minutes, less in later runs "
        f"({_choose_cache(cache_folder)} keeps what was compiled)"
    )
    failures = FailureNotice(on_message)
    for part in (model.backbone, model.neck, model.fpn_neck, model.fine_neck):
        if isinstance(part, nn.Module):
            part.forward = CompiledCall(part.forward, 0, (num_images,), failures)
    decoder, tokens = _find_prompt_part(model)
    decoder.forward = CompiledCall(decoder.forward, tokens, tuple(prompt_counts), failures)


def _choose_cache(cache_folder: Path) -> Path:
    """Where the compiler keeps its work from now on: the user's folder or the one given."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    if name in os.environ:
        found = Path(os.environ[name])
        # PyTorch sets the variable itself when its compiler is imported, as timm does: to a
        # temporary folder, which does not outlive a restart of the machine.
        is_default = found.name.startswith("torchinductor_")
        if not (is_default and found.parent == Path(tempfile.gettempdir())):
            return found
    os.environ[name] = str(cache_folder)
    return cache_folder


def _find_prompt_part(model: OVSAM) -> tuple[nn.Module, int]:
    """The part that works on prompts, and which of its arguments are their tokens."""
    decoder = model.mask_decoder
    if isinstance(decoder, MaskDecoder):
        return decoder.mask_decoder, 2
    assert isinstance(decoder, nn.Module)
    return decoder.get_submodule("transformer"), 0


class FailureNotice:
    """Says once that the compiler failed, whichever part it failed at.

    Args:
        on_message: told of the failure, for a person.
    """

    def __init__(self, on_message: Message) -> None:
        self.has_failed = False
        self._on_message = on_message

    def report(self, error: Exception) -> None:
        """Remember a failure; the first one is told."""
        if not self.has_failed:
            self.has_failed = True
            first_line = str(error).strip().partition("\n")[0]
            self._on_message(
                f"the network could not be compiled ({type(error).__name__}: {first_line}); "
                "it runs without, more slowly (--compile never leaves the attempt out)"
            )


@dataclass(slots=True)
class CompiledCall:
    """A part's `forward`: compiled for steps of some sizes, as it is for all others.

    Attributes:
        plain: the part's own.
        sized: number of the argument whose length is the size of a step: a tensor or the trunk's
            maps.
        counts: sizes to compile for.
        failures: once there is one, nothing is compiled any more.
    """

    plain: Callable[..., object]
    sized: int
    counts: tuple[int, ...]
    failures: FailureNotice
    compiled: Callable[..., object] | None = None

    def __call__(self, *args: object) -> object:
        """Call the part with positional arguments."""
        if self.failures.has_failed or _measure(args[self.sized]) not in self.counts:
            return self.plain(*args)
        if self.compiled is None:
            self.compiled = torch.compile(self.plain, dynamic=False)
        try:
            return self.compiled(*args)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, OSError, ImportError) as error:
            # A mistake that is not the compiler's comes again, from the part as it is.
            result = self.plain(*args)
            self.failures.report(error)
            return result


def _measure(values: object) -> int:
    """Images or prompts of a tensor or of the trunk's maps."""
    if isinstance(values, Sequence):
        values = values[0]
    assert isinstance(values, Tensor)
    return len(values)
