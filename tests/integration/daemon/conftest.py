"""Runs the real daemon, and a process whose connections make its rules fire."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from watchdog.config.permissions import ACCOUNT

PATIENCE = 120.0  # a loaded machine takes many seconds to load the programs
COMMAND = Path(sys.executable).with_name("bpf-watchdog")
STORM = Path(__file__).with_name("storm.py")
NOBODY = 65534
# A busy machine misses ticks of 200 ms and gets a longer interval: tests count all alerts, and these are not theirs.
_QUIET = """\
[[override]]
id = "watchdog-missed-ticks"
enabled = false
[[override]]
id = "watchdog-long-interval"
fire_above = "100000%"
"""
_LAST_LINE = "SIGHUP reads the files again\n"  # of the log lines of its start


class Watchdog:
    """`bpf-watchdog run` with its files in `folder`."""

    def __init__(self, folder: Path, wait_for: Callable[[Callable[[], object], str], None]) -> None:
        self.wait_for = wait_for
        self.config, self.rules, self.state = folder / "watchdog.toml", folder / "rules.d", folder / "state"
        self.rules.mkdir()
        self.command = COMMAND
        self.before: list[str | Path] = []  # arguments before those of the test
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "stderr"
        self._log.touch()
        self._output = folder / "stdout"
        self._began_at = 0

    def configure(self, receivers: dict[str, dict], rules: dict[str, dict], interval: str = "200ms") -> None:
        """Write the settings and one rule file; receivers and rules are given by name."""
        tables = [f"[sampling]\ninterval = {_toml(interval)}", '[routing]\ngroup_interval = "500ms"\njitter = "0s"']
        self.config.write_text("\n".join([*tables, *(_table("receiver", "name", *item) for item in receivers.items())]))
        (self.rules / "test.toml").write_text("\n".join(_table("rule", "id", *item) for item in rules.items()))
        (self.rules / "quiet.toml").write_text(_QUIET if rules else "")

    def configure_more(self, text: str) -> None:
        """Append `text` to the settings."""
        with self.config.open("a") as config:
            config.write(f"\n{text}\n")

    def ask(self, *arguments: object) -> tuple[int, str, str]:
        """Run a bpf-watchdog command, such as `notifications list`; return exit code, stdout and stderr."""
        done = subprocess.run(
            [self.command, *arguments, "--state-dir", self.state],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def launch(self, *command: str, more: Sequence[str] = (), **environment: str) -> None:
        """Start the daemon, through `command` if given, with `more` arguments; do not wait."""
        self._keep_private()
        arguments = ["run", "--config", self.config, "--rules", self.rules, "--state-dir", self.state, *more]
        self._began_at = self._log.stat().st_size
        with self._log.open("ab") as log, self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, self.command, *self.before, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env={**os.environ, **environment},
            )

    def start(self, *command: str, **environment: str) -> None:
        """Start the daemon and wait until it is ready."""
        self.launch(*command, **environment)
        self.wait_for(lambda: self.process.poll() is not None or self._is_ready(), "the daemon")
        assert self.process.poll() is None, self.log()

    def _is_ready(self) -> bool:
        # The log lines of its start come before its control socket.
        log = self.log()
        if _LAST_LINE not in log:
            return False
        if "control socket unavailable" in log:
            return True
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.state / "control.sock")) == 0

    def _keep_private(self) -> None:
        # Settings have secrets: only the account of the daemon may read them.
        if not self.config.exists():
            return
        if self.state.exists() and self.state.stat().st_uid == NOBODY:
            os.chown(self.config, NOBODY, NOBODY)
            self.config.chmod(0o600)
        else:
            os.chown(self.config, 0, pwd.getpwnam(ACCOUNT).pw_gid)
            self.config.chmod(0o640)

    def log(self) -> str:
        """Return the log since the last start."""
        return self._log.read_bytes()[self._began_at :].decode(errors="replace")

    def log_stream(self) -> str:
        """Return the value of JOURNAL_STREAM with which the log counts as the journal."""
        status = self._log.stat()
        return f"{status.st_dev}:{status.st_ino}"

    def output(self) -> str:
        """Return all of its standard output."""
        return self._output.read_bytes().decode(errors="replace")

    def give_to_nobody(self) -> None:
        """Create the state folder as systemd does for the service's account."""
        self.state.mkdir(0o700)
        os.chown(self.state, NOBODY, NOBODY)

    def saved(self, query: str) -> list:
        """Return the first column of `query` on the state file; the daemon may be running."""
        connection = sqlite3.connect(self.state / "state.sqlite3", timeout=5)
        try:
            return [row[0] for row in connection.execute(query)]
        finally:
            connection.close()

    def reload(self) -> str:
        """Reload the daemon; return the log lines of the reload."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: re.search(r"reload(ed:| refused,)(?s:.*)\n$", self.log()[before:]), "the reload")
        return self.log()[before:]

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait(PATIENCE) == -signal.SIGKILL

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and the seconds until the end."""
        began = time.monotonic()
        self.process.terminate()
        return self.process.wait(PATIENCE), time.monotonic() - began

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def _table(kind: str, key: str, name: str, values: dict) -> str:
    lines = [f"{key} = {_toml(value)}" for key, value in {key: name, **values}.items()]
    return "\n".join([f"[[{kind}]]", *lines])


def _toml(value: object) -> str:
    # Texts, numbers and arrays of JSON are valid TOML.
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture
def watchdog(open_folder: Path, wait_for: Callable[[Callable[[], object], str], None]) -> Iterator[Watchdog]:
    """Return a daemon that the test configures and starts."""
    watchdog = Watchdog(open_folder, wait_for)
    yield watchdog
    watchdog.end()


class Storm:
    """A process called `name` that opens connections on command; see storm.py."""

    RATE = 200  # connections a second of `rage`
    LIMIT = 50  # of its rule

    script = STORM

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(STORM), name, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "done\n"

    def rule(self, **changes: object) -> dict:
        """Return a rule that fires on this process."""
        rule = {
            "summary": "{process} opens {value} (limit {threshold})",
            "metric": "connects",
            "stat": "rate",
            "window": "1s",
            "by": ["process"],
            "where": {"process": self.name},
            "fire_above": self.LIMIT,
            "clear_below": self.LIMIT / 2,
        }
        return {**rule, **changes}

    def crowd_rule(self, **changes: object) -> dict:
        """Return a rule that fires while the process holds connections, however slow the machine is."""
        crowd = {
            "summary": "{process} holds {value} (limit {threshold})",
            "metric": "open",
            "stat": "last",
            "where": {"process": self.name, "direction": "out"},
            "fire_above": self.LIMIT,
            "clear_below": self.LIMIT,
        }
        return self.rule(**{**crowd, **changes})

    def hold(self, count: int = LIMIT + 1) -> None:
        self._order(f"hold {count}")

    def release(self) -> None:
        self._order("release")

    def rage(self, rate: float = RATE) -> None:
        self._order(f"rage {rate}")

    def rest(self) -> None:
        self._order("rage 0")

    def open(self, count: int) -> None:
        self._order(f"open {count}")

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()

    def _order(self, order: str) -> None:
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def start_storm() -> Iterator[Callable[..., Storm]]:
    """Return a function that starts a process without connections."""
    storms: list[Storm] = []

    def start(name: str, *arguments: str) -> Storm:
        storms.append(Storm(name, *arguments))
        return storms[-1]

    yield start
    for storm in storms:
        storm.stop()


@pytest.fixture
def storm(start_storm: Callable[..., Storm]) -> Storm:
    """Return a process without connections and with a unique name."""
    return start_storm(f"storm-{os.getpid()}")


@pytest.fixture
def start_daemon(watchdog, server, storm):
    """Return a function that starts the daemon with a rule on the connections that the storm holds, and a webhook."""

    def start(**changes):
        watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule(**changes)})
        watchdog.start()

    return start


@pytest.fixture
def notified(watchdog, server, wait_for):
    """Return a function that waits until the webhook has notifications of these states, and returns them.

    The daemon must have recorded them as delivered: one that it had not recorded at a kill would come again.
    """

    def notified(*expected):
        done = "SELECT id FROM notifications WHERE receiver = 'hook' AND state = 'delivered'"
        everything = "SELECT document FROM alerts UNION ALL SELECT state || ' ' || attempts FROM notifications"
        try:
            wait_for(lambda: len(server.notifications()) >= len(expected), f"notifications {expected}")
            wait_for(lambda: len(watchdog.saved(done)) >= len(expected), f"{expected} to be recorded as delivered")
        except AssertionError as error:
            error.add_note(f"log of the daemon:\n{watchdog.log()}\nits state:\n{watchdog.saved(everything)}")
            raise
        came = list(server.notifications().values())
        rules = [(document["groupLabels"], document["commonAnnotations"]) for document in came]
        assert [document["status"] for document in came] == list(expected), rules
        return came

    return notified
