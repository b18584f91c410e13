"""Folders for whole files, on this machine or in a store behind a URL, with one face.

A file is whole or not there: locally by `write_whole_file`; in object stores because an object
appears when its upload is complete; in other stores because it is sent under another name and then
renamed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from ovsam_cli.errors import InputError, OutputError
from ovsam_cli.outputs.files import output_error, write_whole_file
from ovsam_cli.remote import Store, open_store, parse_location, protocol_of, with_retries

# Their objects are never seen half, and renaming one would copy it.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "hf"})


class Folder(Protocol):
    """Files by their names, which may have folders in them (`a/b.json`)."""

    location: Path | str

    def list_names(self) -> list[str]:
        """All files below, sorted; hidden ones are left out. Empty where there is no folder.

        Raises:
            InputError: it cannot be listed.
        """

    def read(self, name: str) -> bytes | None:
        """A file's content, None where there is none.

        Raises:
            InputError: it cannot be read.
        """

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading here and there.

        Raises:
            InputError: it cannot be read.
        """

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a file.

        Raises:
            OutputError: it cannot be written.
        """

    def upload(self, name: str, path: Path) -> None:
        """Make or replace a file from one of this machine.

        Raises:
            OutputError: it cannot be written.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OutputError: it cannot be removed.
        """


def open_folder(location: Path | str) -> Folder:
    """A folder by its path or URL; it need not exist.

    Raises:
        InputError: a URL of no known protocol, or its package is not installed.
    """
    if isinstance(location, str):
        location = parse_location(location)
    return LocalFolder(location) if isinstance(location, Path) else RemoteFolder(location)


class LocalFolder:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, path: Path) -> None:
        self.location: Path | str = path
        self._path = path

    def list_names(self) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self._path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(folder).relative_to(self._path)
            found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(found)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(f"{self._path / name}", error) from error

    def open(self, name: str) -> BinaryIO:
        try:
            return (self._path / name).open("rb")
        except OSError as error:
            raise _unreadable(f"{self._path / name}", error) from error

    def write(self, name: str, content: bytes) -> None:
        path = self._path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(path, error) from error
        with write_whole_file(path) as file:
            file.write(content)

    def upload(self, name: str, path: Path) -> None:
        self.write(name, path.read_bytes())

    def remove(self, name: str) -> None:
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise output_error(self._path / name, error) from error


class RemoteFolder:
    """A folder of a store; every call is made again where its failure may pass."""

    def __init__(self, url: str) -> None:
        self.location: Path | str = url.rstrip("/")
        store, root = open_store(url)
        self._store: Store = store
        self._root = root.rstrip("/")
        self._is_object_store = protocol_of(url) in OBJECT_STORES

    def list_names(self) -> list[str]:
        self._store.invalidate_cache()
        try:
            paths = with_retries(lambda: self._store.find(self._root))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(str(self.location), error) from error
        names = [path[len(self._root) :].lstrip("/") for path in paths]
        return sorted(name for name in names if "/." not in f"/{name}")

    def read(self, name: str) -> bytes | None:
        try:
            return with_retries(lambda: self._store.cat_file(self._place(name)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self._name(name), error) from error

    def open(self, name: str) -> BinaryIO:
        try:
            return with_retries(lambda: self._store.open(self._place(name), "rb"))
        except OSError as error:
            raise _unreadable(self._name(name), error) from error

    def write(self, name: str, content: bytes) -> None:
        self._put(name, lambda place: self._store.pipe_file(place, content))

    def upload(self, name: str, path: Path) -> None:
        self._put(name, lambda place: self._store.put_file(str(path), place))

    def remove(self, name: str) -> None:
        def remove() -> None:
            with suppress(FileNotFoundError):
                self._store.rm_file(self._place(name))

        self._do(name, remove)

    def _put(self, name: str, send: Callable[[str], None]) -> None:
        place = self._place(name)
        if self._is_object_store:
            self._do(name, lambda: send(place))
            return
        folder, _, last = place.rpartition("/")
        temporary = f"{folder}/.{last}.tmp"
        self._do(name, lambda: self._store.makedirs(folder, exist_ok=True))
        self._do(name, lambda: send(temporary))
        self._do(name, lambda: self._store.mv(temporary, place))

    def _do(self, name: str, action: Callable[[], None]) -> None:
        try:
            with_retries(action)
        except OSError as error:
            raise _unwritable(self._name(name), error) from error

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _name(self, name: str) -> str:
        return f"{self.location}/{name}"


def _unreadable(name: str, error: OSError) -> InputError:
    return InputError(f"{name}: cannot be read: {error.strerror or error or 'not found'}")


def _unwritable(name: str, error: OSError) -> OutputError:
    return OutputError(
        f"{name}: cannot be written: {error.strerror or error}; mend this and run the same command "
        "again, finished images are kept"
    )
