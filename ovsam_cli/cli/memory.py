"""How the process handles memory that layers free."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed instead of giving it back to the system.

    Otherwise each layer's large result is mapped anew and zeroed page by page by the kernel: on
    the CPU that took half of the bundled model's trunk (it then took 170 of 324 ms an image). All
    threads share one heap, or each would keep a peak of its own: what one thread frees serves the
    next. For programs, not for libraries: it counts for the whole process.

    Returns:
        Whether it could be done; with another C library than glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER}
    return all(mallopt(name, value) for name, value in settings.items())
