"""The release of the running kernel, as numbers."""

from __future__ import annotations

import os
import re

_NUMBERS = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?")


def kernel_release() -> tuple[int, int, int]:
    """Return major, minor and patch number of the running kernel; 0 for a number that the release does not have."""
    match = _NUMBERS.match(os.uname().release)
    major, minor, patch = (int(number or 0) for number in match.groups()) if match else (0, 0, 0)
    return major, minor, patch
