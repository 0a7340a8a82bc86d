"""The context of a check: the user's configuration, a scratch folder, and functions to make notifications."""

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
"""Name of the processes of the selftest, by which their connections can be recognised."""

_PR_SET_NAME = 15  # include/uapi/linux/prctl.h
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class CheckContext:
    """`folder`: empty, removed afterwards. `configuration`: as the daemon reads it; its receivers are sent nothing."""

    folder: Path
    configuration: Configuration


def make_notification(number: int, receiver: str) -> Notification:
    """Return a notification for `receiver` with a new id; its group key is unique for `number`."""
    return replace(next(iter(example_notifications(receiver))), group_key=f"selftest-{number}")


def webhook_receivers(folder: Path, urls: dict[str, str]) -> dict[str, Receiver]:
    """Return webhook receivers by name, read from a settings file in `folder` as the daemon reads its own."""
    file = folder / "selftest.toml"
    common = 'type = "webhook"\nrate_limit = "none"\n'  # a check counts losses, so no notification may go into a digest
    tables = [f'[[receiver]]\nname = "{name}"\n{common}url = "{url}"\n' for name, url in urls.items()]
    file.write_text("\n".join(tables), encoding="ascii")
    file.chmod(0o600)
    return build_receivers(load_settings(str(file)))


def wait_until(condition: Callable[[], object], patience_seconds: float) -> bool:
    """Wait until `condition` holds, at most `patience_seconds`; return whether it does."""
    end = time.monotonic() + patience_seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def run_in_child(work: Callable[[], object]) -> int:
    """Call `work` in a forked process and wait for its end; return its pid.

    Raises:
        CheckFailed: the process failed.
    """
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    require(code == 0, f"the observed process ended with code {code}")
    return pid


def set_process_name(name: bytes) -> None:
    """Set the name of this process to `name`, at most 15 bytes."""
    ct.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)
