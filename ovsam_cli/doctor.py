"""What `ovsam doctor` looks at: programs, devices, folders, weights. No network."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ovsam_cli import __version__
from ovsam_cli.errors import CheckpointError

Status = Literal["ok", "note", "broken"]
DISTRIBUTION = "ovsam-cli"
OLDEST_PYTHON = (3, 11)
# Less is soon full of weights and compiled kernels.
FEW_BYTES = 2 * 2**30
# What is lost without the packages of an extra; extras without a line here serve developers.
EXTRA_USES = {
    "fast": "JPEG decoding, resizing and masks are slower; the results are the same",
    "tiny-text": "`tiny` knows the names of the bundled vocabularies only",
    "remote": "no s3://, gs://, hf:// or http(s):// paths",
    "parquet": "no `export parquet`",
    "demo": "no `ovsam demo`",
    "ray": "no `--engine ray`",
    "train": "no TensorBoard files of a training run",
    "scenes": "no `train scenes`",
    "bench": "`ovsam bench` leaves out the rows against SAM and OpenCV",
    "docs": "no `make docs`",
}
# Programs that ours works inside or hands its results to: none is needed.
PLUG_IN_USES = {
    "cvat-cli": "ovsam_cli.plugins.cvat, automatic annotation in CVAT",
    "cvat-sdk": "the same",
    "fiftyone": "ovsam_cli.plugins.fiftyone, a model of FiftyOne",
    "supervision": "Detections.to_supervision()",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: `programs`, `plug-ins`, `devices`, `weights` or `folders`.
        name: what was looked at.
        text: what was found, and what to do where that is needed.
        status: `broken` is what a run needs and has not got; `note` is only worth knowing.
    """

    topic: str
    name: str
    text: str
    status: Status = "ok"


def examine(out: Path | None) -> Iterator[Finding]:
    """Look at everything, one thing after another.

    Args:
        out: output folder of a run to come; None looks at none.
    """
    yield from examine_programs()
    yield from examine_plug_ins()
    yield from examine_devices()
    yield from examine_weights()
    yield from examine_folders(out)


def examine_programs() -> Iterator[Finding]:
    """Python, this program, the packages that it needs, and those that it can use."""
    old = sys.version_info < OLDEST_PYTHON
    yield Finding("programs", "python", platform.python_version(), "broken" if old else "ok")
    yield Finding("programs", "ovsam", __version__)
    for extra, packages in list_requirements().items():
        if not extra:
            yield from map(_examine_package, packages)
        elif extra in EXTRA_USES:
            yield _examine_extra(extra, packages)
    yield from _examine_import("torchvision.ops", "torch and torchvision of one release")


def examine_plug_ins() -> Iterator[Finding]:
    """Programs that ours works inside or hands its results to; their absence is no fault."""
    for package, use in PLUG_IN_USES.items():
        found = _find_version(package) or "not installed"
        yield Finding("plug-ins", package, f"{found} ({use})")


def _examine_import(module: str, wanted: str) -> Iterator[Finding]:
    """Packages of releases that do not go together only say so when they are loaded."""
    try:
        __import__(module)
    except (ImportError, RuntimeError, OSError) as error:
        text = f"cannot be loaded ({' '.join(str(error).split())}); install {wanted}"
        yield Finding("programs", module, text, "broken")


def _examine_package(package: str) -> Finding:
    found = _find_version(package)
    if found:
        return Finding("programs", package, found)
    text = f"is missing: pip install --force-reinstall {DISTRIBUTION}"
    return Finding("programs", package, text, "broken")


def _examine_extra(extra: str, packages: list[str]) -> Finding:
    """The packages of an extra, or which of them are missing and what that costs."""
    found = {package: _find_version(package) for package in packages}
    missing = [package for package, number in found.items() if not number]
    if not missing:
        text = ", ".join(f"{package} {number}" for package, number in found.items())
        return Finding("programs", f"[{extra}]", text)
    text = (
        f"without {', '.join(missing)} {EXTRA_USES[extra]} (pip install '{DISTRIBUTION}[{extra}]')"
    )
    return Finding("programs", f"[{extra}]", text, "note")


def list_requirements() -> dict[str, list[str]]:
    """Packages of the installed distribution by extra; "" has those that are always needed."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # a checkout on the path, not installed
        return {}
    found: dict[str, list[str]] = {"": []}
    for line in lines:
        package = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if package and package[0] != DISTRIBUTION:
            found.setdefault(extra[1] if extra else "", []).append(package[0])
    return found


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def examine_devices() -> Iterator[Finding]:
    """CUDA devices, MPS, and the processor with its memory."""
    if find_spec("torch") is None:
        return
    import torch

    from ovsam_cli.labelling.device import list_devices
    from ovsam_cli.labelling.machine import count_cores, read_cpu_name, read_memory_bytes

    for name in list_devices():
        if name.startswith("cuda"):
            yield _examine_gpu(name)
        elif name == "mps":
            yield Finding("devices", name, platform.processor() or platform.machine())
    if torch.version.cuda is not None and not torch.cuda.is_available():
        text = f"PyTorch is built for CUDA {torch.version.cuda}, but finds no GPU or no driver"
        yield Finding("devices", "cuda", text, "note")
    memory = read_memory_bytes()
    described = f", {memory / 2**30:.0f} GiB of memory" if memory else ""
    yield Finding("devices", "cpu", f"{read_cpu_name()}, {count_cores()} cores{described}")


def _examine_gpu(name: str) -> Finding:
    """A GPU, and whether it computes: a driver too old for PyTorch only fails then."""
    import torch

    try:
        free, total = torch.cuda.mem_get_info(name)
        torch.ones(1, device=name).add_(1).item()
    except RuntimeError as error:
        text = f"cannot compute: {str(error).splitlines()[0]}; see to its driver"
        return Finding("devices", name, text, "broken")
    kind = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    title = torch.cuda.get_device_name(name)
    text = f"{title}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, {kind} by default"
    return Finding("devices", name, text)


def examine_weights() -> Iterator[Finding]:
    """Every known model: where its files are, and whether their content is what it should be."""
    from ovsam_cli.model.hub import find_local_files
    from ovsam_cli.model.known_files import check_known_files
    from ovsam_cli.model.known_models import DESCRIPTIONS

    for name in DESCRIPTIONS:
        paths = find_local_files(name)
        if not paths and name == "tiny":
            text = f"the bundled file is missing: pip install --force-reinstall {DISTRIBUTION}"
            yield Finding("weights", name, text, "broken")
        elif not paths:
            text = f"not on this machine: ovsam models download {name}"
            yield Finding("weights", name, text, "note")
        for path in paths:
            try:
                is_known = bool(check_known_files([path]))
            except CheckpointError as error:
                yield Finding("weights", name, str(error), "broken")
                continue
            text = "sha256 ok" if is_known else "sha256 not known beforehand, so not checked"
            yield Finding("weights", name, f"{path}, {_size_text(path.stat().st_size)}, {text}")


def examine_folders(out: Path | None) -> Iterator[Finding]:
    """The caches and the output folder: size, write access, room on the disk."""
    from ovsam_cli.model.hub import cache_folder, hub_cache_folder

    cache = cache_folder()
    yield _examine_folder("cache", cache, what_to_do="set OVSAM_CACHE to another folder")
    if find_spec("huggingface_hub") is not None:
        hub = hub_cache_folder()
        yield _examine_folder("hub's cache", hub, what_to_do="set HF_HOME to another folder")
    if out is not None:
        yield _examine_folder("out", out, what_to_do="choose another --out", is_measured=False)


def _examine_folder(
    name: str, folder: Path, *, what_to_do: str, is_measured: bool = True
) -> Finding:
    """Whether a folder, or the nearest one above it that exists, can be written."""
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not place.is_dir():
        return Finding("folders", name, f"{place} is a file, no folder; {what_to_do}", "broken")
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        text = f"{folder}: {place} cannot be written ({error.strerror or error}); {what_to_do}"
        return Finding("folders", name, text, "broken")
    parts = [str(folder)]
    if place != folder:
        parts.append("not made yet")
    elif is_measured:
        parts.append(_size_text(measure_folder(folder)))
    text = ", ".join([*parts, "can be written", f"{_size_text(free)} free on the disk"])
    if free < FEW_BYTES:
        return Finding("folders", name, f"{text}: little; {what_to_do}", "note")
    return Finding("folders", name, text)


def measure_folder(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone in the meantime, or out of reach
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _size_text(num_bytes: int) -> str:
    """Bytes in the unit that a person would choose."""
    size, unit = float(num_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
