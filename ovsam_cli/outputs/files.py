"""Files that are either whole or not there: written beside the target, synced, then renamed.

A reader never meets half a file, and a full disk leaves the old file as it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ovsam_cli.errors import InputError, OutputError

# Says that a folder is an export, which `--overwrite` may replace.
EXPORT_MARK = ".ovsam-export"


@contextmanager
def write_whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a binary file to write to; it takes the place of `path` when the block ends well.

    The temporary file has one fixed name beside the target, so a killed run leaves at most one,
    and the next run writes over it. When the block raises, `path` is untouched.

    Args:
        path: the file to make or replace; its folder must exist.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    temporary = temporary_path(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise output_error(path, error) from error
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def write_whole_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `path` when the block ends well.

    Args:
        path: must not be there, or be empty.
        overwrite: replace an earlier export; nothing else is ever removed.

    Raises:
        InputError: there is something else.
        OutputError: the folder cannot be made.
    """
    _check_free(path, overwrite=overwrite)
    temporary = temporary_path(path)
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed
        temporary.mkdir(parents=True)
        (temporary / EXPORT_MARK).touch()
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise output_error(path, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _check_free(path: Path, *, overwrite: bool) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / EXPORT_MARK).is_file():
        raise InputError(f"{path}: is there already and is no export; choose another --out")
    if not overwrite:
        raise InputError(f"{path}: holds an export; choose another --out or give --overwrite")


def check_new_file(path: Path, *, overwrite: bool) -> None:
    """Refuse early to write a file where that cannot be, or where something else would be lost.

    Raises:
        InputError: it is there already, is a folder, or its folder is missing.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it, such as {path / 'coco.json'}")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: is there already; choose another --out or give --overwrite")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it first or choose another --out")


def _remove(temporary: Path) -> None:
    """Remove what may be there; what went wrong before counts, not that this goes wrong too."""
    with suppress(OSError):
        temporary.unlink()


def temporary_path(path: Path) -> Path:
    """Where a file stands until it is whole: hidden, in the same folder (so a rename is atomic)."""
    return path.with_name(f".{path.name}.tmp")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can do that."""
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def output_error(path: Path, error: OSError) -> OutputError:
    """Say which file could not be written, why, and how much room is left."""
    return OutputError(
        f"{path}: cannot be written: {error.strerror or error}{_free_space(path)}; "
        "mend this and run the same command again, finished images are kept"
    )


def _free_space(path: Path) -> str:
    for folder in path.parents:
        try:
            return f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB free)"
        except OSError:
            continue
    return ""
