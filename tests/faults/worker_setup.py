"""What worker processes do first in the fault tests, where a setup of the parent does not reach."""

from __future__ import annotations

import os
import time

# Setup of a parent: its workers run `slow_down`, and take so many seconds more an image.
SLOWED_WORKERS = """
import os, worker_setup, ovsam_cli.cli.memory
os.environ["SECONDS_AN_IMAGE"] = "{seconds}"
ovsam_cli.cli.memory.keep_freed_memory = worker_setup.slow_down
"""


def slow_down() -> None:
    """Slow the network down to what a stop in its middle can be aimed at."""
    from ovsam_cli.model.ovsam import OVSAM

    encode, seconds = OVSAM.encode_images, float(os.environ["SECONDS_AN_IMAGE"])

    def slowly(self, pixels, input_hw):
        time.sleep(seconds)
        return encode(self, pixels, input_hw)

    OVSAM.encode_images = slowly
