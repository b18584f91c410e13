"""How the process handles memory that layers free."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed instead of giving it back to the system.

    Otherwise each layer's large result is mapped anew and zeroed page by page by the kernel: on
    the CPU that took half of the bundled model's trunk (it then took 170 of 324 ms an image). The
    peak of the memory in use stays the same. For programs, not for libraries: it counts for the
    whole process.

    Returns:
        Whether it could be done; with another C library than glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
