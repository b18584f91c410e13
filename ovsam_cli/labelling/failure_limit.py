"""How many images may fail before a run is not worth going on with."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ovsam_cli.errors import TooManyFailuresError
from ovsam_cli.labelling.run_files import ERRORS_FILE
from ovsam_cli.structures import ImageResult


class FailureLimit:
    """Counts failed images, in one thread; another may ask whether there are too many.

    Args:
        limit: that many may fail; None is any number.
        failed_before: images that failed in an earlier start and are not taken again.
    """

    def __init__(self, limit: int | None, failed_before: Collection[str]) -> None:
        self._limit = limit
        self._num_failed = len(failed_before)
        self._last: ImageResult | None = None

    @property
    def is_exceeded(self) -> bool:
        """Whether more failed than may."""
        return self._limit is not None and self._num_failed > self._limit

    def count(self, result: ImageResult) -> None:
        """Note what became of an image."""
        if result.status == "failed":
            self._num_failed += 1
            self._last = result

    def to_error(self, out: Path) -> TooManyFailuresError:
        """What to tell the user of a run that writes to `out`."""
        last = "" if self._last is None else f" (the last: {self._last.message})"
        return TooManyFailuresError(
            f"{self._num_failed} image(s) failed, more than --max-failures {self._limit}{last}: "
            f"see {out / ERRORS_FILE}; mend them and go on with --retry-failed, or allow more"
        )
