"""Choosing the device a run computes on, and its threads."""

from __future__ import annotations

import platform

import torch

from ovsam_cli.errors import InputError


def choose_device(devices: str) -> torch.device:
    """`auto` takes the first of cuda, mps and cpu that is there.

    Raises:
        InputError: the device is not on this machine; those that are get listed.
    """
    present = list_devices()
    if devices == "auto":
        return torch.device(present[0])
    wanted = "cuda:0" if devices == "cuda" else devices
    if wanted not in present:
        raise InputError(
            f"--devices {devices}: not on this machine; there is {', '.join(present)}"
            " (auto takes the first)"
        )
    return torch.device(wanted)


def list_devices() -> list[str]:
    """Names of the devices on this machine, fastest first."""
    found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def use_threads(num_threads: int) -> None:
    """Let this process compute with so many threads, whatever OMP_NUM_THREADS says."""
    torch.set_num_threads(num_threads)


def count_threads() -> int:
    """Threads that this process computes with: OMP_NUM_THREADS, else as many as it has cores."""
    return torch.get_num_threads()


def describe_device(device: torch.device) -> str:
    """Name of the hardware, for run.json."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"{device} {platform.processor() or platform.machine()}".strip()


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device computes in it faster, else float32."""
    if dtype == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32 if dtype == "float32" else torch.bfloat16
