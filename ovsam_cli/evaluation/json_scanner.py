"""JSON read piece by piece: a list of a million entries never stands in memory as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_SPACE = re.compile(r"[ \t\n\r]*")


class JsonScanner:
    """Walks through a JSON text; each value must be taken before the next key or item.

    Args:
        text: one JSON document.

    Attributes:
        position: where the next value begins; may be set back to where it was before.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self._decode = json.JSONDecoder().raw_decode

    def take(self) -> object:
        """The next value, parsed.

        Raises:
            ValueError: not JSON.
        """
        self._skip_space()
        value, self.position = self._decode(self.text, self.position)
        return value

    def iter_keys(self) -> Iterator[str]:
        """The keys of the next value, an object.

        Raises:
            ValueError: not JSON, or no object.
        """
        for key in self._iter_between("{", "}"):
            if not isinstance(key, str):
                raise ValueError(f"expected a key, found {key!r:.80}")
            self._expect(":")
            yield key

    def iter_items(self) -> Iterator[object]:
        """The items of the next value, a list, parsed one at a time.

        Raises:
            ValueError: not JSON, or no list.
        """
        yield from self._iter_between("[", "]")

    def _iter_between(self, first: str, last: str) -> Iterator[object]:
        self._expect(first)
        if self._next_is(last):
            return
        while True:
            yield self.take()
            if self._next_is(last):
                return
            self._expect(",")

    def _skip_space(self) -> None:
        match = _SPACE.match(self.text, self.position)
        assert match is not None  # an empty match is a match
        self.position = match.end()

    def _next_is(self, character: str) -> bool:
        self._skip_space()
        found = self.text[self.position : self.position + 1] == character
        self.position += found
        return found

    def _expect(self, character: str) -> None:
        if not self._next_is(character):
            found = self.text[self.position : self.position + 20]
            raise ValueError(f"expected {character!r} at character {self.position}, not {found!r}")
