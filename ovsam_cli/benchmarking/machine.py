"""On what a benchmark ran: processor, memory, GPU, versions, commit, date."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ovsam_cli.labelling.machine import read_cpu_name, read_memory_bytes

PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "pycocotools", "numba", "simplejpeg"),
    *("opencv-python-headless", "opencv-python", "segment-anything", "triton"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a reader needs to judge a figure.

    Attributes:
        date: UTC, ISO 8601, to the second.
        cpu: name of the processor.
        num_cores: that this process may use.
        memory_gib: of the machine, rounded.
        load: mean number of running processes in the minute before the start; -1 if unknown.
        gpu: its name, or "" without one.
        gpu_from_driver: name, driver version and memory by nvidia-smi, or "".
        device: where the models ran.
        num_threads: of torch.
        python: version.
        packages: (name, version) of those that are installed.
        commit: of the checkout, with "+" if files were changed; "" outside of one.
    """

    date: str
    cpu: str
    num_cores: int
    memory_gib: int
    load: float
    gpu: str
    gpu_from_driver: str
    device: str
    num_threads: int
    python: str
    packages: tuple[tuple[str, str], ...]
    commit: str


def describe_machine(device: torch.device) -> Machine:
    """Ask the system; what it does not tell stays empty."""
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=read_cpu_name(),
        num_cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_gib=round(read_memory_bytes() / 2**30),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0,
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        gpu_from_driver=_run(
            "nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"
        ),
        device=str(device),
        num_threads=torch.get_num_threads(),
        python=platform.python_version(),
        packages=tuple((name, found) for name in PACKAGES if (found := _find_version(name))),
        commit=_read_commit(),
    )


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _read_commit() -> str:
    folder = str(Path(__file__).parent)
    commit = _run("git", "-C", folder, "rev-parse", "--short=12", "HEAD")
    changed = _run("git", "-C", folder, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{commit}+" if commit and changed else commit


def _run(*command: str) -> str:
    """What a program says; nothing if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
