"""Kernel tests run the real programs in the real kernel; they fail where BPF is refused."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

READER = Path(__file__).with_name("reader.py")
PATIENCE_SECONDS = 20


class Rows(list):
    """Rows as `sample --json` has them."""

    def total(self, name: str) -> int:
        return sum(row[name] for row in self)

    def where(self, **wanted: object) -> "Rows":
        return Rows(row for row in self if all(row[name] == value for name, value in wanted.items()))

    def values(self, name: str) -> set:
        return {row[name] for row in self}


class Reader:
    """The collecting process of a test; see reader.py."""

    def __init__(self, ledger_capacity: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(READER), str(ledger_capacity)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()  # the baseline is taken
        self.quality: dict[str, int] = {}

    def ask(self, question: str) -> dict:
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self._answer()

    def rows(self, port: int | None = None) -> Rows:
        """Read now; return the rows of everything since the start, or of connections to and from a server's port."""
        answer = self.ask("read")
        self.quality = answer["quality"]
        return Rows(row for row in answer["rows"] if port in (None, row["local_port"], row["remote_port"]))

    def by_port(self, port: int, state: str) -> dict:
        """Read now; return the sums of this process's sockets on a local port, in a state."""
        rows = self.ask("read")["by_port"]
        return next(row for row in rows if (row["local_port"], row["state"]) == (port, state))

    def until(self, complete: Callable[[Rows], bool], port: int | None = None) -> Rows:
        """Read until the rows are complete: the kernel ends connections after close() has returned."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            rows = self.rows(port)
            if complete(rows) or time.monotonic() > end:
                return rows
            time.sleep(0.05)

    def until_closed(self, count: int, port: int | None = None) -> Rows:
        """Read until so many ends of connections are closed."""
        return self.until(lambda rows: rows.total("closes") >= count, port)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        assert line, "the collecting process ended: its stderr tells why"
        return json.loads(line)


@pytest.fixture
def start_reader() -> Iterator[Callable[..., Reader]]:
    """Return a function that starts a collecting process; it is ended with the test."""
    readers = []

    def start(ledger_capacity: int = 65536) -> Reader:
        readers.append(Reader(ledger_capacity))
        return readers[-1]

    yield start
    for reader in readers:
        reader.stop()


@pytest.fixture
def reader(start_reader: Callable[..., Reader]) -> Reader:
    """Return a collecting process whose baseline is taken."""
    return start_reader()
