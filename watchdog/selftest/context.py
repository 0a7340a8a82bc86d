"""What a rehearsal plays with: the user's own settings and rules, a scratch folder, notices of its own."""

from __future__ import annotations

import contextlib
import ctypes as ct
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from watchdog.config.settings import load_settings
from watchdog.daemon.configuration import Configuration
from watchdog.receivers.base import Receiver
from watchdog.receivers.registry import build_receivers
from watchdog.receivers.render.example import example_notifications
from watchdog.routing.notification import Notification
from watchdog.selftest.result import require

PROCESS_NAME = b"bpf-wd-selftest"
"""What rehearsing processes are called: whoever sees their connections knows whose they are."""

_PR_SET_NAME = 15  # include/uapi/linux/prctl.h
_LOOK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class CheckContext:
    """`folder`: empty, removed afterwards. `setup`: as the daemon would read it; nothing is sent to its receivers."""

    folder: Path
    configuration: Configuration


def make_notification(number: int, receiver: str) -> Notification:
    """Return a notice for `receiver` about a group that no other number has; its id is new."""
    return replace(next(iter(example_notifications(receiver))), group_key=f"rehearsal-{number}")


def webhook_receivers(folder: Path, urls: dict[str, str]) -> dict[str, Receiver]:
    """Return webhooks by name, read from a file in `folder` as the daemon reads its own."""
    file = folder / "rehearsal.toml"
    common = 'type = "webhook"\nrate_limit = "none"\n'  # it is what gets lost that is counted, not what is told at once
    tables = [f'[[receiver]]\nname = "{name}"\n{common}url = "{url}"\n' for name, url in urls.items()]
    file.write_text("\n".join(tables), encoding="ascii")
    file.chmod(0o600)
    return build_receivers(load_settings(str(file)))


def wait_until(condition: Callable[[], object], patience_seconds: float) -> bool:
    """Wait until `condition` holds; tell whether it did in time."""
    end = time.monotonic() + patience_seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def run_in_child(work: Callable[[], object]) -> int:
    """Do `work` in a process forked from this one, and wait for its end; return its pid.

    Raises:
        Failed: it did not come to a good end.
    """
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    require(code == 0, f"the process that was to be watched ended with code {code}")
    return pid


def set_process_name(name: bytes) -> None:
    """Call this process by `name`, 15 bytes of it at most."""
    ct.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)
