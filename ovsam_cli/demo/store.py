"""Things kept for the page, as many as fit; what was not used for longest goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class BoundedStore(Generic[Kept]):
    """A dictionary bounded in number and bytes, for several threads.

    The newest entry stays even where it is larger than the bound by itself.

    Args:
        max_entries: kept at once.
        max_bytes: of all entries together, as told by `put`.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[Kept, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Of all entries."""
        return self._num_bytes

    def put(self, key: str, entry: Kept, num_bytes: int) -> None:
        """Keep an entry, in place of an older one of this key; others may have to go."""
        with self._lock:
            _, before = self._entries.pop(key, (None, 0))
            self._entries[key] = (entry, num_bytes)
            self._num_bytes += num_bytes - before
            while len(self._entries) > 1 and (
                len(self._entries) > self._max_entries or self._num_bytes > self._max_bytes
            ):
                _, (_, freed) = self._entries.popitem(last=False)
                self._num_bytes -= freed

    def get(self, key: str) -> Kept | None:
        """An entry, which counts as used now; None where it is gone or never was."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]
