"""Which rehearsals there are, and how one is run: in a process of its own, of which nothing stays."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog.daemon.configuration import ConfigurationSources
from watchdog.kernel import privileges
from watchdog.selftest.result import CheckResult, CheckStatus

# Rehearsal: the module that has `run_check`.
CHECK_MODULES = {
    "full-disk": "watchdog.selftest.full_disk",
    "hung-receiver": "watchdog.selftest.hung_receiver",
    "full-ledger": "watchdog.selftest.full_ledger",
    "clock-step": "watchdog.selftest.clock_step",
    "hostile-names": "watchdog.selftest.hostile_names",
    "kill": "watchdog.selftest.kill",
}
CHECK_TIMEOUT_SECONDS = 45.0  # each takes seconds, on a host that is busy some more

_MOST_COMPLAINT = 300
_TEMPORARY = "/tmp"  # noqa: S108 - a folder in it is made by mkdtemp; TMPDIR may name one that the account cannot enter


def run_in_process(
    name: str, sources: ConfigurationSources, timeout_seconds: float = CHECK_TIMEOUT_SECONDS
) -> CheckResult:
    """Run one rehearsal; a crash or a hang is one that failed."""
    began = time.monotonic()
    with _scratch() as folder:
        # -I: neither the current folder, nor PYTHONPATH, nor the user's own packages.
        command = [sys.executable, "-I", "-m", "watchdog.selftest", name, str(folder)]
        arguments = [json.dumps(sources.settings_file), json.dumps(sources.rules_path)]
        child = subprocess.Popen(  # noqa: S603 - ourselves
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            output, complaints = child.communicate(timeout=timeout_seconds)
            verdict, seen = _read(output, complaints, child.returncode)
        except subprocess.TimeoutExpired:
            verdict, seen = CheckStatus.FAILED, f"no end after {timeout_seconds:g} s"
        finally:
            _end(child)
    return CheckResult(name, verdict, seen, round(time.monotonic() - began, 2))


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-selftest-", dir=_TEMPORARY))
    try:
        if os.geteuid() == 0:  # given up in most rehearsals
            account = privileges.service_account()
            os.chown(folder, account.pw_uid, account.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    # With all that it has started: the group is there until the last of them is gone.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def _read(output: bytes, complaints: bytes, code: int) -> tuple[CheckStatus, str]:
    try:
        document = json.loads(output)
        return CheckStatus(document["verdict"]), str(document["seen"])
    except (ValueError, LookupError, TypeError):
        how = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
        last = complaints.decode(errors="replace").strip().rpartition("\n")[2][-_MOST_COMPLAINT:]
        return CheckStatus.FAILED, f"{how}: {last}" if last else how
