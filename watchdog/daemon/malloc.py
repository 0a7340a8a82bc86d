"""How this process takes memory from the system, and gives it back.

A tick on a busy host makes arrays of megabytes and drops them again. glibc by default raises the size from which such
arrays get pages of their own, keeps the freed ones, and gives each thread a heap: a burst then stays resident for good.
"""

from __future__ import annotations

import ctypes as ct

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h; to set the first two ends their growing
_THRESHOLD_BYTES = 128 * 1024


def release_free_memory() -> None:
    """Return every free page now: what the start needed and nothing will need again."""
    trim = getattr(ct.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def configure_malloc() -> None:
    """Tell malloc to return large blocks at once, and to use one heap; with another C library, do nothing."""
    mallopt = getattr(ct.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in (
        (_M_MMAP_THRESHOLD, _THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _THRESHOLD_BYTES),
        (_M_ARENA_MAX, 1),
    ):
        mallopt(option, value)
