"""The teacher's features on disk: shards of our own, and the original project's files.

A cache folder holds `features-<digest>.safetensors` files, each with the float16 features of some
images under their keys, and `teacher.safetensors` with the teacher's position table. A shard is
named after its content, written beside its place and renamed, so that a reader never meets half of
one and two processes never write different things under one name. The original project keeps one
float32 tensor an image instead, `<stem>_vit_h_cache.pth`, beside the image or in one folder.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.files import output_error, sync_folder, temporary_path
from ovsam_cli.training.teacher_images import KeyArray, TeacherImage, TeacherImages

SHARD_PATTERN = "features-*.safetensors"
POSITIONS_FILE, POSITIONS_KEY = "teacher.safetensors", "pos_embed"
ORIGINAL_ENDING = "_vit_h_cache.pth"
TEMPORARY_NAME = ".part-{part:03d}.tmp"
# What a damaged or foreign file makes torch raise.
_UNREADABLE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError),
    pickle.UnpicklingError,
)
_REMEDY = "make them with: ovsam train cache-teacher IMAGES OUT --checkpoint FILE"


@dataclass(frozen=True, slots=True)
class TeacherIdentity:
    """Whose features a shard holds; shards of one folder agree.

    Attributes:
        teacher: size of the encoder, such as `vit_h`.
        weights_sha256: of its file.
        precision: what it computed in.
    """

    teacher: str
    weights_sha256: str
    precision: str

    def describe(self) -> str:
        """A few words for a message."""
        return f"{self.teacher} in {self.precision} (sha256 {self.weights_sha256[:12]}...)"


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """What the shards of a folder hold.

    Attributes:
        paths: the sound shards.
        keys: (N,) sorted, of all images in them.
        shard_of: (N,) rows of `paths`.
        identity: whose features; None without any shard.
        torn: files that are no whole shards.
    """

    paths: tuple[Path, ...]
    keys: KeyArray
    shard_of: NDArray[np.int64]
    identity: TeacherIdentity | None
    torn: tuple[Path, ...]

    def find(self, keys: KeyArray) -> NDArray[np.bool_]:
        """Which of these keys are in a shard."""
        found: NDArray[np.bool_] = np.isin(keys, self.keys)
        return found

    def path_of(self, key: str) -> Path | None:
        """The shard with this key."""
        wanted = key.encode()
        row = int(np.searchsorted(self.keys, wanted))
        if row == len(self.keys) or bytes(self.keys[row]) != wanted:
            return None
        return self.paths[int(self.shard_of[row])]


def read_shard_index(folder: Path) -> ShardIndex:
    """Read the headers of all shards; the features stay on disk.

    Raises:
        InputError: shards of different teachers lie in the folder.
    """
    paths, torn = [], []
    keys: list[bytes] = []
    counts = []
    identity = None
    for path in sorted(folder.glob(SHARD_PATTERN)):
        try:
            with safe_open(path, framework="pt") as file:
                found, metadata = list(file.keys()), file.metadata() or {}
            one = TeacherIdentity(
                metadata["teacher"], metadata["weights_sha256"], metadata["precision"]
            )
        except (SafetensorError, OSError, KeyError):
            torn.append(path)
            continue
        if identity is not None and one != identity:
            raise InputError(
                f"{path}: features of {one.describe()} among those of {identity.describe()}; "
                "keep the shards of one teacher in a folder"
            )
        identity = one
        paths.append(path)
        keys += [key.encode() for key in found]
        counts.append(len(found))
    names: KeyArray = np.array(keys, dtype=np.bytes_)
    order = np.argsort(names, kind="stable")
    shard_of = np.repeat(np.arange(len(paths)), counts)[order].astype(np.int64)
    return ShardIndex(tuple(paths), names[order], shard_of, identity, tuple(torn))


def write_shard(
    folder: Path, features: Mapping[str, Tensor], identity: TeacherIdentity, part: int
) -> Path:
    """Write some images' features, whole or not at all.

    Args:
        folder: of the cache.
        features: image key -> (D, h, w) float16.
        identity: goes into the metadata.
        part: number of this process; its temporary file is its own.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    digest = hashlib.sha256("\n".join(sorted(features)).encode()).hexdigest()[:16]
    path = folder / SHARD_PATTERN.replace("*", digest)
    temporary = folder / TEMPORARY_NAME.format(part=part)
    save_tensors(path, features, asdict(identity), temporary)
    return path


def write_positions(folder: Path, pos_embed: Tensor, identity: TeacherIdentity) -> None:
    """Keep the teacher's (1, h, w, C) position table, which the neck starts from.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    path = folder / POSITIONS_FILE
    tensors = {POSITIONS_KEY: pos_embed.detach().cpu().contiguous()}
    save_tensors(path, tensors, asdict(identity))


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    temporary: Path | None = None,
) -> None:
    """Write a safetensors file, whole or not at all.

    Args:
        path: of the file.
        tensors: contiguous, on the CPU.
        metadata: beside them.
        temporary: where it stands until it is whole; default: hidden beside `path`.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    temporary = temporary or temporary_path(path)
    try:
        save_file(dict(tensors), temporary, {"format": "pt", **metadata})
        os.chmod(temporary, 0o644)  # safetensors' files are for their owner only
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        cause = error if isinstance(error, OSError) else OSError(str(error))
        raise output_error(path, cause) from error
    finally:
        temporary.unlink(missing_ok=True)


class TeacherCache:
    """Reads features, ours or the original project's.

    Args:
        folder: a cache folder, or a folder of `*_vit_h_cache.pth` files; those beside the images
            are found in any case.
        embedding_shape: (D, h, w) that the neck makes; features of another shape are refused.

    Raises:
        InputError: no such folder, a shard is torn, or its features have another shape.
    """

    def __init__(self, folder: Path, embedding_shape: tuple[int, int, int]) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of teacher features; {_REMEDY}")
        self.folder = folder
        self.embedding_shape = embedding_shape
        self.index = read_shard_index(folder)
        if self.index.torn:
            raise InputError(
                f"{self.index.torn[0]}: not a whole file of features ({len(self.index.torn)} such "
                "in the folder); run the command that made them again, it makes them anew"
            )
        if self.index.paths:
            self._read_from_shard(self.index.paths[0], None)

    def find(self, images: TeacherImages) -> NDArray[np.int64]:
        """Positions of the images that have features."""
        has_features = self.index.find(images.keys)
        listed = {name for name in os.listdir(self.folder) if name.endswith(ORIGINAL_ENDING)}
        for position in np.flatnonzero(~has_features):
            image = images[int(position)]
            name = image.path.stem + ORIGINAL_ENDING
            has_features[position] = name in listed or image.path.with_name(name).exists()
        return np.flatnonzero(has_features).astype(np.int64)

    def read(self, image: TeacherImage) -> Tensor | None:
        """(D, h, w) float features of an image, as stored; None if there are none.

        Raises:
            InputError: a file cannot be read or holds something else.
        """
        shard = self.index.path_of(image.key)
        if shard is not None:
            return self._read_from_shard(shard, image.key)
        name = image.path.stem + ORIGINAL_ENDING
        for path in (self.folder / name, image.path.with_name(name)):
            if path.exists():
                return self._read_original(path)
        return None

    def read_positions(self) -> Tensor | None:
        """The teacher's (1, h, w, C) position table, if the folder has it."""
        path = self.folder / POSITIONS_FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                positions: Tensor = file.get_tensor(POSITIONS_KEY)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({error}); {_REMEDY}") from error
        return positions

    def _read_from_shard(self, path: Path, key: str | None) -> Tensor:
        """The features under this key, or under the first."""
        try:
            with safe_open(path, framework="pt") as file:
                name = next(iter(file.keys())) if key is None else key
                features: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({error}); {_REMEDY}") from error
        return self._check(features, f"{path}, {name}")

    def _read_original(self, path: Path) -> Tensor:
        """One image's tensor of the original project."""
        try:
            content: object = torch.load(path, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            raise InputError(
                f"{path} ({path.stat().st_size} bytes): torn or not a tensor file; delete it, or "
                "make it again"
            ) from error
        if not isinstance(content, Tensor):
            raise InputError(
                f"{path}: holds a {type(content).__name__}, expected one tensor of shape "
                f"{self.embedding_shape}"
            )
        return self._check(content, str(path))

    def _check(self, features: Tensor, source: str) -> Tensor:
        if tuple(features.shape) != self.embedding_shape or not features.is_floating_point():
            raise InputError(
                f"{source}: {features.dtype} of shape {tuple(features.shape)}, expected floating "
                f"features of shape {self.embedding_shape}; they are of another teacher"
            )
        return features
