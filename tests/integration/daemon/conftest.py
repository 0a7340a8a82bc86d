"""The daemon itself to be run by tests, and a process to be told of."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from watchdog.config.permissions import ACCOUNT

PATIENCE = 15.0
COMMAND = Path(sys.executable).with_name("bpf-watchdog")
STORM = Path(__file__).with_name("storm.py")
NOBODY = 65534
_LAST_LINE = "SIGHUP reads the files again\n"  # of what it says when it starts


class Watchdog:
    """`bpf-watchdog run` with its files in `folder`."""

    def __init__(self, folder: Path, wait_for: Callable[[Callable[[], object], str], None]) -> None:
        self.wait_for = wait_for
        self.config, self.rules, self.state = folder / "watchdog.toml", folder / "rules.d", folder / "state"
        self.rules.mkdir()
        self.command = COMMAND
        self.before: list[str | Path] = []  # arguments before ours
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "stderr"
        self._log.touch()
        self._output = folder / "stdout"
        self._began_at = 0

    def configure(self, receivers: dict[str, dict], rules: dict[str, dict], interval: str = "200ms") -> None:
        """Write the settings and one file of rules, all of them by name."""
        tables = [f"[sampling]\ninterval = {_toml(interval)}", '[routing]\ngroup_interval = "500ms"\njitter = "0s"']
        self.config.write_text("\n".join([*tables, *(_table("receiver", "name", *item) for item in receivers.items())]))
        (self.rules / "test.toml").write_text("\n".join(_table("rule", "id", *item) for item in rules.items()))

    def configure_more(self, text: str) -> None:
        """Add to the settings."""
        with self.config.open("a") as config:
            config.write(f"\n{text}\n")

    def ask(self, *arguments: object) -> tuple[int, str, str]:
        """Run a command of ours, such as `notifications list`; return its exit code, output and words."""
        done = subprocess.run(
            [self.command, *arguments, "--state-dir", self.state],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def launch(self, *command: str, more: Sequence[str] = (), **environment: str) -> None:
        """Start it, by `command` where it is given, with `more` arguments, without waiting for anything."""
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
        """Start it and wait until it guards."""
        self.launch(*command, **environment)
        self.wait_for(
            lambda: "SIGHUP reads the files again" in self.log() or self.process.poll() is not None, "the daemon"
        )
        assert self.process.poll() is None, self.log()

    def _keep_private(self) -> None:
        # Settings hold secrets: for the account that the daemon becomes, or that a test has it be.
        if not self.config.exists():
            return
        if self.state.exists() and self.state.stat().st_uid == NOBODY:
            os.chown(self.config, NOBODY, NOBODY)
            self.config.chmod(0o600)
        else:
            os.chown(self.config, 0, pwd.getpwnam(ACCOUNT).pw_gid)
            self.config.chmod(0o640)

    def log(self) -> str:
        """Return what it has said since it was started last."""
        return self._log.read_bytes()[self._began_at :].decode(errors="replace")

    def log_stream(self) -> str:
        """Return what systemd's JOURNAL_STREAM would say if the log went to the journal."""
        status = self._log.stat()
        return f"{status.st_dev}:{status.st_ino}"

    def output(self) -> str:
        """Return what it has written to standard output."""
        return self._output.read_bytes().decode(errors="replace")

    def give_to_nobody(self) -> None:
        """Make the state folder as systemd would for the service's account."""
        self.state.mkdir(0o700)
        os.chown(self.state, NOBODY, NOBODY)

    def saved(self, query: str) -> list:
        """Return what the state file holds, the daemon running or not: the first column of the query's rows."""
        connection = sqlite3.connect(self.state / "state.sqlite3", timeout=5)
        try:
            return [row[0] for row in connection.execute(query)]
        finally:
            connection.close()

    def reload(self) -> str:
        """Have it read its files again; return what it says of that."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: re.search(r"reload(ed:| refused,)(?s:.*)\n$", self.log()[before:]), "the reload")
        return self.log()[before:]

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait(PATIENCE) == -signal.SIGKILL

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and the seconds that it took."""
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
    # JSON's texts, numbers and arrays are TOML's too.
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture
def watchdog(open_folder: Path, wait_for: Callable[[Callable[[], object], str], None]) -> Iterator[Watchdog]:
    """Return a daemon that is still to be configured and started."""
    watchdog = Watchdog(open_folder, wait_for)
    yield watchdog
    watchdog.end()


class Storm:
    """A process that calls itself `name` and opens connections as it is told; see storm.py."""

    RATE = 200  # connections a second while it rages
    LIMIT = 50  # of the rule against it

    script = STORM

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(STORM), name, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "done\n"

    def rule(self, **changes: object) -> dict:
        """Return a rule that finds it."""
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
        """Return a rule that finds it while it holds connections, however slow the machine is."""
        crowd = {
            "summary": "{process} holds {value} (limit {threshold})",
            "metric": "open",
            "stat": "last",
            "where": {"process": self.name, "direction": "out"},
            "fire_above": self.LIMIT,
            "clear_below": self.LIMIT,
        }
        return self.rule(**{**crowd, **changes})

    def hold(self) -> None:
        self._order(f"hold {self.LIMIT + 1}")

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
    """Return a function that starts a process that is still calm."""
    storms: list[Storm] = []

    def start(name: str, *arguments: str) -> Storm:
        storms.append(Storm(name, *arguments))
        return storms[-1]

    yield start
    for storm in storms:
        storm.stop()


@pytest.fixture
def storm(start_storm: Callable[..., Storm]) -> Storm:
    """Return a process that is still calm; its name is its own, whatever else runs on this host."""
    return start_storm(f"storm-{os.getpid()}")


@pytest.fixture
def start_daemon(watchdog, server, storm):
    """Return a function that starts the daemon with a rule against what the storm holds, and a webhook to be told."""

    def start(**changes):
        watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule(**changes)})
        watchdog.start()

    return start


@pytest.fixture
def notified(watchdog, server, wait_for):
    """Return a function that waits until the webhook has taken notices of these states, and returns them.

    Taken: the daemon has written down that it was answered. A notice killed before that would come again.
    """

    def notified(*expected):
        done = "SELECT id FROM notifications WHERE receiver = 'hook' AND state = 'delivered'"
        everything = "SELECT document FROM alerts UNION ALL SELECT state || ' ' || attempts FROM notifications"
        try:
            wait_for(lambda: len(server.notifications()) >= len(expected), f"notices {expected}")
            wait_for(lambda: len(watchdog.saved(done)) >= len(expected), f"{expected} to be written down as done")
        except AssertionError as error:
            error.add_note(f"the daemon said:\n{watchdog.log()}\nin its state:\n{watchdog.saved(everything)}")
            raise
        assert server.statuses() == list(expected)
        return list(server.notifications().values())

    return notified
