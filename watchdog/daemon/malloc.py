"""Settings of malloc, so that freed memory goes back to the system.

A tick on a busy host allocates arrays of megabytes and frees them. By default glibc raises the size from which such
arrays get pages of their own, keeps freed pages, and gives each thread a heap: memory of a burst then stays resident.
"""

from __future__ import annotations

import ctypes as ct

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = (
    -1,
    -3,
    -8,
)  # malloc.h; setting the first two ends their automatic growth
_THRESHOLD_BYTES = 128 * 1024


def release_free_memory() -> None:
    """Return every free page to the system now, such as the memory that only the start needed."""
    trim = getattr(ct.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def configure_malloc() -> None:
    """Set malloc to return large blocks at once and to use one heap; do nothing with another C library."""
    mallopt = getattr(ct.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in (
        (_M_MMAP_THRESHOLD, _THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _THRESHOLD_BYTES),
        (_M_ARENA_MAX, 1),
    ):
        mallopt(option, value)
