"""Files behind a URL, through fsspec (extra `remote`): told from paths, listed, and read whole.

A download that breaks off is begun again from its start, and what came of it is dropped, so nobody
meets half a file. Only `http`, `s3`, ... need a package; paths never load fsspec.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from ovsam_cli.errors import InputError

ATTEMPTS = 4
FIRST_WAIT_S = 0.5  # before the second attempt; doubled before each further one
# A server that accepts and then says nothing must not hold a reader for ever.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PATTERN = re.compile(r"[*?\[]")
_WEB = ("http", "https")
# The answer will be the same: not worth asking again. (408, 429 and 5xx are.)
_FINAL_STATUSES = frozenset(range(400, 500)) - {408, 429}
Result = TypeVar("Result")


class Store(Protocol):
    """A file system of fsspec, as far as it is used; paths are without the protocol."""

    def cat_file(self, path: str) -> bytes: ...
    def get_file(self, rpath: str, lpath: str) -> None: ...
    def open(self, path: str, mode: str) -> BinaryIO: ...
    def find(self, path: str) -> list[str]: ...
    def glob(self, path: str) -> list[str]: ...
    def isfile(self, path: str) -> bool: ...
    def exists(self, path: str) -> bool: ...
    def pipe_file(self, path: str, value: bytes) -> None: ...
    def put_file(self, lpath: str, rpath: str) -> None: ...
    def mv(self, path1: str, path2: str) -> None: ...
    def rm_file(self, path: str) -> None: ...
    def makedirs(self, path: str, exist_ok: bool) -> None: ...
    def invalidate_cache(self) -> None: ...
    def unstrip_protocol(self, name: str) -> str: ...


def is_url(text: str) -> bool:
    """Whether a text names something with `protocol://`."""
    return _URL.match(text) is not None


def parse_location(text: str) -> Path | str:
    """Where a file is: a path of this machine (`file://` too), or a URL as it stands."""
    if not is_url(text):
        return Path(text)
    if protocol_of(text) == "file":
        return Path(unquote(urlsplit(text).path))
    return text


def protocol_of(url: str) -> str:
    """The part before `://`, in small letters."""
    return url.partition("://")[0].lower()


def without_query(url: str) -> str:
    """A URL for messages and names: what follows `?` may be a signature that opens the file."""
    return url.partition("?")[0] if protocol_of(url) in _WEB else url


def open_store(url: str) -> tuple[Store, str]:
    """The store of a URL, and the URL's path in it.

    Raises:
        InputError: no such protocol, or its package is not installed.
    """
    protocol = protocol_of(url)
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise InputError(
            f"{without_query(url)}: reading {protocol}:// needs fsspec; "
            "pip install 'ovsam-cli[remote]'"
        ) from error
    options: dict[str, object] = {}
    if protocol in _WEB:
        options["client_kwargs"] = {"timeout": _web_timeout()}
    elif protocol in ("s3", "s3a"):
        options["max_concurrency"] = 1  # more would ask for every file's size before reading it
    try:
        store, path = url_to_fs(url, **options)
    except ImportError as error:
        raise InputError(
            f"{without_query(url)}: {error}; most stores come with pip install 'ovsam-cli[remote]'"
        ) from error
    except ValueError as error:
        raise InputError(f"{without_query(url)}: {error}") from error
    return store, path


def read_url(url: str) -> bytes:
    """Download a file, whole.

    Raises:
        FileNotFoundError: there is no such object.
        PermissionError: the store refuses it.
        ConnectionError: it could not be had in several attempts.
        InputError: the protocol's package is not installed.
    """
    store, path = open_store(url)
    return with_retries(lambda: store.cat_file(path))


@contextmanager
def open_location(location: Path | str) -> Iterator[BinaryIO]:
    """Open a file of this machine, or what a URL brings, downloaded whole to a temporary file.

    Raises:
        OSError: it cannot be read; of a URL as `read_url`.
        InputError: the protocol's package is not installed.
    """
    if isinstance(location, Path):
        with location.open("rb") as file:
            yield file
        return
    store, path = open_store(location)
    with tempfile.TemporaryDirectory(prefix="ovsam-") as folder:
        copy = Path(folder, "download")
        with_retries(lambda: store.get_file(path, str(copy)))
        with copy.open("rb") as file:
            yield file


def with_retries(action: Callable[[], Result]) -> Result:
    """Do something with a store, again if it fails for a reason that may pass.

    Raises:
        FileNotFoundError, PermissionError: at once.
        ConnectionError: the last attempt failed too; its message says why.
    """
    wait = FIRST_WAIT_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # each store has a family of errors of its own
            status = getattr(error, "status", None)
            if status in (401, 403):
                raise PermissionError(f"HTTP status {status}") from error
            if attempt == ATTEMPTS or status in _FINAL_STATUSES:
                raise ConnectionError(_describe(error, attempt)) from error
        time.sleep(wait)
        wait *= 2
    raise AssertionError("unreachable")


def list_files(url: str) -> tuple[str, list[str]]:
    """The files that a URL stands for: one object, all below a folder, or those of a pattern.

    Web servers have no folders: `http(s)` is always one file, which is not looked for here.

    Returns:
        The URL of the folder (for a file its parent, for a pattern the part before it), and the
        files' URLs, sorted.

    Raises:
        InputError: nothing is there, or the store cannot be asked.
    """
    if protocol_of(url) in _WEB:
        return parent_of(url), [url]
    store, path = open_store(url)
    try:
        names, root = with_retries(lambda: _list(store, path))
    except (OSError, InputError) as error:
        raise InputError(f"{url}: cannot be listed: {error or type(error).__name__}") from error
    if not names:
        raise InputError(f"{url}: no such object, nothing below it, and no match of a pattern")
    return store.unstrip_protocol(root).rstrip("/"), sorted(map(store.unstrip_protocol, names))


def parent_of(url: str) -> str:
    """The URL of the folder a file is in."""
    return without_query(url).rpartition("/")[0]


def _list(store: Store, path: str) -> tuple[list[str], str]:
    store.invalidate_cache()
    if pattern := _PATTERN.search(path):
        return store.glob(path), path[: pattern.start()].rpartition("/")[0]
    if store.isfile(path):
        return [path], path.rpartition("/")[0]
    return store.find(path), path


def _web_timeout() -> object:
    from aiohttp import ClientTimeout

    return ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)


def _describe(error: Exception, attempts: int) -> str:
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"{reason} (after {attempts} attempts)" if attempts > 1 else reason
