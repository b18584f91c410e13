"""Where the files of the known models are on this machine, and how to get them."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model.known_models import (
    DESCRIPTIONS,
    MODEL_FILES,
    OFFICIAL_NOTICE,
    TINY_PATH,
    HubFile,
    KnownModel,
)
from ovsam_cli.model.official_files import find_weight_files
from ovsam_cli.model.unpickling import compute_sha256

PROBE_TIMEOUT_S = 5.0


def cache_folder() -> Path:
    """Where our own files lie: $OVSAM_CACHE, else $XDG_CACHE_HOME/ovsam, else ~/.cache/ovsam."""
    own = os.environ.get("OVSAM_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovsam"


def hub_cache_folder() -> Path:
    """Where the hub's client keeps what it downloaded: below $HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def list_models() -> list[KnownModel]:
    """Every known model, with its place if it is complete on this machine."""
    models = []
    for name, description in DESCRIPTIONS.items():
        paths = find_local_files(name)
        models.append(KnownModel(name, description, paths[0] if paths else None))
    return models


def find_local_files(name: str) -> list[Path]:
    """The files of a known model without any network call; empty when something is missing.

    Looked at in order: the bundled file, `<cache>/models/<name>.safetensors` (converted), the
    folder `<cache>/models/<name>` (official files put there by hand), the hub's own cache.
    """
    if name == "tiny":
        return [TINY_PATH] if TINY_PATH.is_file() else []
    converted = cache_folder() / "models" / f"{name}.safetensors"
    if os.path.isfile(converted):  # False, not an error, where the cache may not be read
        return [converted]
    folder = cache_folder() / "models" / name
    if os.path.isdir(folder) and (files := find_weight_files(folder)):
        return files
    cached = [find_cached(file) for file in MODEL_FILES[name]]
    return [path for path in cached if path is not None] if all(cached) else []


def find_cached(file: HubFile) -> Path | None:
    """A file's path in the hub's cache, or None; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(file.repo_id, file.filename)
    return Path(found) if isinstance(found, str) else None


def download_model(name: str, *, on_message: Callable[[str], None] | None = None) -> list[Path]:
    """Make sure that the files of a known model are on this machine.

    Args:
        name: a key of DESCRIPTIONS.
        on_message: told what is downloaded.

    Returns:
        The files.

    Raises:
        CheckpointError: unknown name, no network, or the hub has not got a file.
    """
    if name not in DESCRIPTIONS:
        raise CheckpointError(f"no model is called {name!r}; known: {', '.join(DESCRIPTIONS)}")
    paths = find_local_files(name)
    if paths:
        return paths
    if name == "tiny":
        raise CheckpointError(f"{TINY_PATH}: the bundled weights are missing; reinstall ovsam-cli")
    if not can_reach_hub():
        raise CheckpointError(_describe_absence(name, "the hub cannot be reached"))
    if on_message is not None:
        on_message(OFFICIAL_NOTICE)
    return [_download(name, file, on_message) for file in MODEL_FILES[name]]


def can_reach_hub() -> bool:
    """Whether the hub answers within seconds; its own client would retry for half a minute."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True  # only the proxy knows
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def _download(name: str, file: HubFile, on_message: Callable[[str], None] | None) -> Path:
    """Fetch one file into the hub's cache and check its content."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.logging import set_verbosity

    if (cached := find_cached(file)) is not None:
        return cached
    if on_message is not None:
        on_message(f"downloading {file.filename} from huggingface.co/{file.repo_id}")
    set_verbosity(logging.CRITICAL)  # it tries again by itself; the reason comes below
    try:
        path = Path(hf_hub_download(file.repo_id, file.filename))
    except Exception as error:  # the hub's own, those of its transport, of the disk
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(_describe_absence(name, reason)) from error
    # The hub keeps large files under their SHA-256, but itself checks only their size.
    expected = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", expected) and compute_sha256(path) != expected:
        raise CheckpointError(
            f"{path}: damaged on the way (expected sha256 {expected}); delete it and try again"
        )
    return path


def _describe_absence(name: str, reason: str) -> str:
    """What is missing and the ways out."""
    by_repo: dict[str, list[str]] = {}
    for file in MODEL_FILES[name]:
        by_repo.setdefault(file.repo_id, []).append(file.filename)
    commands = " && ".join(
        f"hf download {repo_id} {' '.join(names)} --revision main"
        for repo_id, names in by_repo.items()
    )
    return (
        f"the weights of {name!r} are not on this machine: {reason}. On a machine with network run "
        f"`{commands}`, or put the official files into {cache_folder() / 'models' / name}; "
        "offline and without any download, use `--model tiny`"
    )
