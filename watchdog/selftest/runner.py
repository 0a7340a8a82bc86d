"""The list of checks, and the function that runs one in its own process and removes everything afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from watchdog.kernel import privileges
from watchdog.kernel.temporary_folder import TemporaryFolder, remove_abandoned_folders, temporary_folder
from watchdog.selftest.result import CheckResult, CheckStatus

if TYPE_CHECKING:
    from watchdog.daemon.configuration import ConfigurationSources

# Name of the check: module with its `run_check`.
CHECK_MODULES = {
    "full-disk": "watchdog.selftest.full_disk",
    "hung-receiver": "watchdog.selftest.hung_receiver",
    "full-ledger": "watchdog.selftest.full_ledger",
    "clock-step": "watchdog.selftest.clock_step",
    "hostile-names": "watchdog.selftest.hostile_names",
    "kill": "watchdog.selftest.kill",
}
CHECK_TIMEOUT_SECONDS = 45.0  # each check takes seconds, longer on a busy host

_MAX_STDERR_CHARACTERS = 300
_TEMPORARY = "/tmp"  # noqa: S108 - of temporary folders; the account may be unable to enter that of TMPDIR


def run_in_process(
    name: str, sources: ConfigurationSources, timeout_seconds: float = CHECK_TIMEOUT_SECONDS
) -> CheckResult:
    """Run one check; a crash or a timeout counts as failed."""
    began = time.monotonic()
    with _scratch() as folder:
        # -I: neither the current folder, nor PYTHONPATH, nor the user's own packages.
        command = [sys.executable, "-I", "-m", "watchdog.selftest", name, str(folder.path)]
        arguments = [json.dumps(sources.settings_file), json.dumps(sources.rules_path)]
        child = subprocess.Popen(  # noqa: S603 - this program itself
            [*command, *arguments],
            pass_fds=[folder.lock_fd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            output, errors = child.communicate(timeout=timeout_seconds)
            status, detail = _parse_result(output, errors, child.returncode)
        except subprocess.TimeoutExpired:
            status, detail = CheckStatus.FAILED, f"no end after {timeout_seconds:g} s"
        finally:
            _end(child)
    return CheckResult(name, status, detail, round(time.monotonic() - began, 2))


@contextmanager
def _scratch() -> Iterator[TemporaryFolder]:
    remove_abandoned_folders((_TEMPORARY,))
    with temporary_folder(_TEMPORARY) as folder:
        if os.geteuid() == 0:  # most checks give up root
            account = privileges.service_account()
            os.chown(folder.path, account.pw_uid, account.pw_gid)
        yield folder


def _end(child: subprocess.Popen[bytes]) -> None:
    # The whole process group, with every process that the check started.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def _parse_result(output: bytes, errors: bytes, code: int) -> tuple[CheckStatus, str]:
    try:
        document = json.loads(output)
        return CheckStatus(document["status"]), str(document["detail"])
    except (ValueError, LookupError, TypeError):
        end = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
        last = errors.decode(errors="replace").strip().rpartition("\n")[2][-_MAX_STDERR_CHARACTERS:]
        return CheckStatus.FAILED, f"{end}: {last}" if last else end
