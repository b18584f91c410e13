"""How much goes to the device at once, and what becomes of it when memory runs out.

Out of memory is no failure: the same items are tried again in smaller portions, and the smaller
portions stay for the rest of the run, because the next items would need as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import torch

from ovsam_cli.labelling.prompt_chunks import choose_chunk

Found = TypeVar("Found")
# Smaller chunks save little while a whole batch of image features is held.
FEW_PROMPTS = 8
# What backends say, in messages of a plain RuntimeError.
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")


class WorkSizes:
    """Images and prompts a step, as large as memory has allowed so far.

    Attributes:
        images: images an encoder run.
        prompts: prompts a decoder call.
        fixed: chunks and batches are filled up to few sizes, as compiled graphs want them.
    """

    def __init__(
        self,
        *,
        images: int,
        prompts: int,
        fixed: bool = False,
        on_message: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.images = images
        self.prompts = prompts
        self.fixed = fixed
        self._on_message = on_message
        self._has_spoken = False

    def shrink_prompts(self, tried: int) -> bool:
        """Halve the prompts a call below `tried`; False where only fewer images could help."""
        if tried <= 1 or (tried <= FEW_PROMPTS and self.images > 1):
            return False
        self.prompts = tried // 2
        self._say()
        return True

    def shrink_images(self, num_images: int) -> bool:
        """Halve the images a run below `num_images`; False where it was one only."""
        if num_images <= 1:
            return False
        self.images = min(self.images, num_images // 2)
        self._say()
        return True

    def _say(self) -> None:
        if not self._has_spoken:
            self._has_spoken = True
            self._on_message(
                "the device ran out of memory; the same images are tried again in smaller steps, "
                "and smaller steps stay (--batch-size and --prompts-per-batch start with them)"
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the device's or the machine's, did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _MEMORY_WORDS)


def attempt(work: Callable[[], Found]) -> Found | None:
    """What `work` gives, or None where memory ran out.

    The error is dropped here, and with it what its frames held on the device.
    """
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    free_device_memory()
    return None


def free_device_memory() -> None:
    """Give back what PyTorch keeps for later; after an error, outside of its handler."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_in_chunks(
    num_rows: int, sizes: WorkSizes, work: Callable[[slice, int], Found]
) -> Iterator[Found]:
    """Call `work(rows, filled)` for consecutive rows, fewer at a time when memory runs out.

    Args:
        num_rows: all rows.
        sizes: how many go at once; changed when that was too many.
        work: given the rows of a chunk and the number of rows to fill them up to.

    Raises:
        MemoryError: the smallest chunk was too large.
    """
    start = 0
    while start < num_rows:
        taken, filled = choose_chunk(num_rows - start, sizes.prompts, fixed=sizes.fixed)
        rows = slice(start, start + taken)
        found = attempt(partial(work, rows, filled))
        if found is not None:
            yield found
            start += taken
        elif not sizes.shrink_prompts(filled):
            raise MemoryError(f"{taken} prompts at once are too many")
