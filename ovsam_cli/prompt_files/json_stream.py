"""A JSON file read piece by piece: of a document of a million entries, one is in memory."""

from __future__ import annotations

import codecs
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ovsam_cli.remote import open_location

CHUNK_BYTES = 1 << 20
# Where a text ends in the middle of a value, the parser finds fault with its last characters (the
# longest word is `-Infinity`), or with a string that it names by its start.
CUT_CHARACTERS = 12
_SPACE = re.compile(r"[ \t\n\r]*")


class JsonFileError(ValueError):
    """The file is not JSON.

    Attributes:
        line, column: where, from 1.
    """

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class JsonStream:
    """Walks through one JSON document; each value must be taken before the next key or item.

    Args:
        file: seekable.
        chunk_bytes: how much is read at once.
    """

    def __init__(self, file: BinaryIO, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._file = file
        self._chunk_bytes = chunk_bytes
        self._parse = json.JSONDecoder().raw_decode
        file.seek(0)
        self._encoding = json.detect_encoding(file.read(4))
        self.rewind()

    def rewind(self) -> None:
        """Go back to the beginning."""
        self._file.seek(0)
        self._decoder = codecs.getincrementaldecoder(self._encoding)("strict")
        self._text, self._position = "", 0
        self._line, self._column = 1, 1  # of the first character of the text
        self._is_at_end = False

    def hash_into(self, update: Callable[[bytes], None]) -> None:
        """Give all bytes to a digest, and go back to the beginning."""
        self._file.seek(0)
        while chunk := self._file.read(self._chunk_bytes):
            update(chunk)
        self.rewind()

    def peek(self) -> str:
        """The first character of the next value; empty at the end."""
        self._skip_space()
        return self._text[self._position : self._position + 1]

    def take(self) -> object:
        """The next value, parsed.

        Raises:
            JsonFileError: not JSON.
            UnicodeDecodeError: no text.
            RecursionError: nested too deep.
        """
        self._skip_space()
        while True:
            try:
                value, end = self._parse(self._text, self._position)
            except json.JSONDecodeError as error:
                is_cut = error.pos >= len(self._text) - CUT_CHARACTERS
                if (is_cut or error.msg.startswith("Unterminated")) and self._read_more():
                    continue
                raise self._error(error.msg, error.pos) from error
            # A number may go on; cut before the digits of its exponent, two characters are left.
            if end < len(self._text) - 2 or not self._read_more():
                self._position = end
                return cast(object, value)

    def iter_keys(self) -> Iterator[str]:
        """The keys of the next value, an object; errors as of `take`."""
        for key in self._iter_between("{", "}"):
            if not isinstance(key, str):
                raise self._error("Expecting property name enclosed in double quotes")
            self._expect(":")
            yield key

    def iter_items(self) -> Iterator[object]:
        """The items of the next value, a list, parsed one at a time; errors as of `take`."""
        yield from self._iter_between("[", "]")

    def walk(self) -> dict[str, object]:
        """Read the whole document, which checks it, and go back to the beginning.

        Returns:
            The values of an object by key, lists and objects among them as None. Empty for a
            document that is none.

        Raises:
            JsonFileError, UnicodeDecodeError, RecursionError: as of `take`.
        """
        found: dict[str, object] = {}
        if self.peek() == "{":
            for key in self.iter_keys():
                found[key] = self.skip()
        else:
            self.skip()
        if self.peek():
            raise self._error("Extra data")
        self.rewind()
        return found

    def skip(self) -> object:
        """Pass over the next value; None for a list or an object, else the value."""
        first = self.peek()
        if first == "[":
            for _ in self.iter_items():
                pass
            return None
        if first == "{":
            for _ in self.iter_keys():
                self.take()
            return None
        return self.take()

    def _iter_between(self, first: str, last: str) -> Iterator[object]:
        self._expect(first)
        if self._pass(last):
            return
        while True:
            yield self.take()
            if self._pass(last):
                return
            self._expect(",")

    def _pass(self, character: str) -> bool:
        is_next = self.peek() == character
        self._position += is_next
        return is_next

    def _expect(self, character: str) -> None:
        if not self._pass(character):
            raise self._error(f"Expecting {character!r} delimiter")

    def _skip_space(self) -> None:
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None  # an empty match is a match
            self._position = match.end()
            if self._position < len(self._text) or not self._read_more():
                return

    def _read_more(self) -> bool:
        """Drop what was taken and read on, more the longer the value at hand is."""
        if self._is_at_end:
            return False
        rest = self._text[self._position :]
        raw = self._file.read(max(self._chunk_bytes, len(rest)))
        self._line, self._column = self._place(self._position)
        self._is_at_end = not raw
        self._text, self._position = rest + self._decoder.decode(raw, not raw), 0
        return True

    def _place(self, position: int) -> tuple[int, int]:
        """Line and column of a place in the text at hand."""
        num_lines = self._text.count("\n", 0, position)
        if not num_lines:
            return self._line, self._column + position
        return self._line + num_lines, position - self._text.rfind("\n", 0, position)

    def _error(self, message: str, position: int | None = None) -> JsonFileError:
        return JsonFileError(
            message, *self._place(self._position if position is None else position)
        )


@contextmanager
def open_json(path: Path | str) -> Iterator[JsonStream]:
    """Open a JSON file; a pipe, or what a URL brings, is copied to a temporary file first.

    Raises:
        OSError: the file cannot be read.
    """
    with open_location(path) as file:
        if file.seekable():
            yield JsonStream(file)
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            yield JsonStream(cast(BinaryIO, copy))
