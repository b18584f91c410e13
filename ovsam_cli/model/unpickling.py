"""Read tensors from files of any origin without ever running code that they bring.

In order: safetensors; torch's own `weights_only` reader; a reader that turns every class it does
not know into an inert stub, for training checkpoints with foreign objects beside the weights. The
stub reader also takes TorchScript archives apart, which OpenAI's CLIP files are.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ovsam_cli.errors import CheckpointError

Messages = Callable[[str], None] | None

LARGE_BYTES = 64 << 20  # a smaller file that wants more memory than there is, is damaged
# What a file of tensors needs. Neither `builtins.getattr` nor anything else that acts.
_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
}
_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Stub:
    """Stands where a pickle wants an object of a class that is not allowed; does nothing."""

    def __new__(cls, *_: object) -> Stub:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *_: object) -> Stub:
        return Stub()

    def __setitem__(self, key: object, value: object) -> None:
        """A dict's subclass is filled this way."""

    def append(self, value: object) -> None:
        """A list's subclass is filled this way."""

    def extend(self, values: object) -> None:
        """A list's subclass is filled this way."""


def read_tensors(path: Path, on_message: Messages = None) -> dict[str, Tensor]:
    """The named tensors of a safetensors, torch or TorchScript file, in host memory.

    A mapping under `state_dict` is taken if there is one; whatever is not a tensor is left out.

    Args:
        path: the file.
        on_message: told which classes of the file were refused.

    Raises:
        CheckpointError: the file is missing, truncated, corrupt or of another kind.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}
        content = _read_torch_file(path, on_message)
    except (
        *(OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError),
        *(zipfile.BadZipFile, KeyError, ValueError, AttributeError, TypeError, IndexError),
        *(OverflowError, MemoryError),
    ) as error:
        if isinstance(error, MemoryError) and path.stat().st_size > LARGE_BYTES:
            raise
        raise CheckpointError(_describe_failure(path, error)) from error
    return _named_tensors(content)


def _read_torch_file(path: Path, on_message: Messages) -> object:
    """The object that a torch or TorchScript file holds, unknown classes as stubs."""
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return _read_torchscript(archive)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused; the error says it all
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError:
        refused: set[str] = set()
        content: object = torch.load(
            path,
            map_location="cpu",
            weights_only=False,
            pickle_module=_stub_pickle_module(refused),
            mmap=is_zip,
        )
        if refused and on_message is not None:
            on_message(f"{path}: ignored objects of {', '.join(sorted(refused))}")
        return content


def _stub_pickle_module(refused: set[str]) -> SimpleNamespace:
    """Something torch.load takes for the pickle module; unknown classes become stubs."""

    class StubUnpickler(pickle.Unpickler):
        def find_class(self, module_name: str, global_name: str, /) -> object:
            allowed = _ALLOWED.get((module_name, global_name))
            if allowed is None:
                refused.add(f"{module_name}.{global_name}")
                return Stub
            return allowed

    def load(file: BinaryIO, *, encoding: str = "ASCII") -> object:
        return StubUnpickler(file, encoding=encoding).load()

    return SimpleNamespace(Unpickler=StubUnpickler, load=load, __name__="ovsam_cli stub reader")


def _read_torchscript(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive under their attribute paths; its code is not read.

    Unlike torch, the zip reader checks the stored checksums, so that a flipped bit is found.
    """
    root = next(name for name in archive.namelist() if name.endswith("/data.pkl"))[:-8]

    def rebuild(storage: Tensor, offset: int, size: tuple[int, ...], *rest: object) -> Tensor:
        stride = cast(tuple[int, ...], rest[0])
        return storage.as_strided(size, stride, offset)

    class ScriptUnpickler(pickle.Unpickler):
        def find_class(self, module_name: str, global_name: str, /) -> object:
            if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
                return rebuild
            return _STORAGE_DTYPES.get(global_name, Stub) if module_name == "torch" else Stub

        def persistent_load(self, pid: tuple[str, torch.dtype, str, str, int]) -> Tensor:
            data = bytearray(archive.read(f"{root}data/{pid[2]}"))
            return torch.frombuffer(data, dtype=pid[1]) if data else torch.empty(0, dtype=pid[1])

    with archive.open(f"{root}data.pkl") as file:
        content = ScriptUnpickler(file).load()
    return dict(_iter_attributes(content, ""))


def _iter_attributes(content: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of a tree of stubs."""
    if isinstance(content, Stub) and isinstance(content.state, dict):
        for name, value in content.state.items():
            path = f"{prefix}{name}"
            if isinstance(value, Tensor):
                yield path, value
            else:
                yield from _iter_attributes(value, f"{path}.")


def _named_tensors(content: object) -> dict[str, Tensor]:
    """The tensors of a mapping, or of the mapping under its `state_dict`."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        return {}
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _describe_failure(path: Path, error: Exception) -> str:
    """One line: which file, what it seems to be, what to do."""
    if not path.is_file():
        return f"{path}: no such weights file"
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start:
        kind = "the file is empty"
    elif start.startswith(b"version https://git-lfs"):
        kind = "this is a Git LFS pointer, not the weights; run `git lfs pull` beside it"
    elif start.startswith(b"<"):
        kind = "this is a web page, not the weights"
    else:
        kind = f"truncated, corrupt or not weights ({type(error).__name__}"
        wanted = _find_promised_size(path) if path.suffix == ".safetensors" else None
        kind += ")" if wanted is None else f"; its header promises {wanted} bytes)"
    return f"{path} ({path.stat().st_size} bytes): {kind}; download it again"


def _find_promised_size(path: Path) -> int | None:
    """Bytes of a safetensors file by its own header; None where that is no header."""
    try:
        with path.open("rb") as file:
            num_bytes = int.from_bytes(file.read(8), "little")
            if num_bytes > path.stat().st_size:
                return None
            entries = json.loads(file.read(num_bytes))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name[0] != "_"]
        return 8 + num_bytes + max(map(int, ends))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def compute_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
