"""Freed memory is kept: a large block is not mapped anew."""

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import numpy as np
from ovsam_cli.cli.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(3):  # the first ones grow the heap
    np.ones(8_000_000).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(8_000_000).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_kept() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", COUNT_FAULTS, how]))
        for how in ("keep", "plain")
    }
    assert faults["keep"] < faults["plain"] / 4
