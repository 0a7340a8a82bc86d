"""One run of a fuzz target on one input: errors, and more than a second, are defects."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from file_targets import FILE_TARGETS
from fuzz_target import FuzzFunction, FuzzTarget
from peer_targets import PEER_TARGETS

TARGETS: dict[str, FuzzTarget] = {**FILE_TARGETS, **PEER_TARGETS}
CORPUS = Path(__file__).parent / "corpus"
MAX_SECONDS = 1.0

_TRIES = 3  # a slow run counts if each of them is slow: a busy machine delays a single one


class SlowInputError(Exception):
    """The target needed more than `MAX_SECONDS`."""


def run_checked(function: FuzzFunction, data: bytes) -> None:
    """Run `function` on `data`.

    Raises:
        SlowInputError: it takes more than a second, each time.
        Exception: any error of the target.
    """
    seconds = MAX_SECONDS + 1
    for _ in range(_TRIES):
        began = time.monotonic()
        function(data)
        seconds = min(seconds, time.monotonic() - began)
        if seconds <= MAX_SECONDS:
            return
    raise SlowInputError(f"{seconds:.1f} s")


def kept_inputs(name: str) -> Iterator[bytes]:
    """Yield the seeds of a target, and the files of its corpus."""
    yield from TARGETS[name].seeds()
    for file in sorted((CORPUS / name).glob("*")):
        yield file.read_bytes()


def defect_key(error: BaseException) -> str:
    """Return a text that is equal for errors from the same place."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "watchdog" in frame.filename] or frames
    return f"{type(error).__name__} at {own[-1].filename}:{own[-1].lineno}"


def resident_bytes() -> tuple[int, int]:
    """Return the resident memory of this process, and its peak, in bytes: proc_pid_status(5)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(fields[key].split()[0]) * 1_024 for key in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
