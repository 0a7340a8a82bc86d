"""Kernel tests run the real programs in the real kernel; they fail where BPF is refused."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from watchdog.kernel.btf import message_probes_warning

READER = Path(__file__).with_name("reader.py")
GENERATORS = Path(__file__).with_name("generators")
PATIENCE_SECONDS = int(os.environ.get("WATCHDOG_PATIENCE_SECONDS", "60"))  # more where the kernel is emulated
UNAVAILABLE = 77  # exit status of a generator where the kernel lacks a feature; its stderr names the feature


class Rows(list):
    """Rows with the keys of `sample --json`."""

    def total(self, name: str) -> int:
        return sum(row[name] for row in self)

    def where(self, **values: object) -> "Rows":
        return Rows(row for row in self if all(row[name] == value for name, value in values.items()))

    def values(self, name: str) -> set:
        return {row[name] for row in self}


class Reader:
    """A collecting process; see reader.py."""

    def __init__(self, ledger_capacity: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(READER), str(ledger_capacity)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(READER.parent.parent)},
        )
        self.quality: dict[str, int] = {}
        self.walk_unfinished = 0
        self.elapsed_seconds = 0.0  # of the last reading
        try:
            self._read_answer()  # the baseline is read
        except BaseException:
            self.stop()
            raise

    def begin(self) -> None:
        """Make now the beginning of its measurements, without message probes, as if it had just been started."""
        self.request("begin")
        self.quality, self.walk_unfinished, self.elapsed_seconds = {}, 0, 0.0

    def request(self, command: str) -> dict:
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self._read_answer()

    def rows(self, port: int | None = None, netns: int | None = None) -> Rows:
        """Read now; return the rows since the beginning: all, or those of a server's port or a network namespace."""
        answer = self.request("read")
        self.quality = answer["quality"]
        self.elapsed_seconds = answer["elapsed_seconds"]
        self.walk_unfinished = answer["walk_unfinished"]
        return Rows(
            row
            for row in answer["rows"]
            if port in (None, row["local_port"], row["remote_port"]) and netns in (None, row["netns"])
        )

    def by_port(self, port: int, state: str) -> dict:
        """Read now; return the sums of the sockets with a local port and a state."""
        rows = self.request("read")["by_port"]
        return next(row for row in rows if (row["local_port"], row["state"]) == (port, state))

    def until(self, complete: Callable[[Rows], bool], port: int | None = None, netns: int | None = None) -> Rows:
        """Read until the rows are complete: the kernel ends connections after close() has returned."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            rows = self.rows(port, netns)
            if complete(rows) or time.monotonic() > end:
                return rows
            time.sleep(0.05)

    def until_closed(self, count: int, port: int | None = None, netns: int | None = None) -> Rows:
        """Read until `count` ends of connections are closed."""
        return self.until(lambda rows: rows.total("closes") >= count, port, netns)

    def totals_until(self, complete: Callable[[Callable[[int], Counter]], bool]) -> Callable[[int], Counter]:
        """Read until the totals of processes are complete; return a function from pid to its totals."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self.request("read")
            self.quality = answer["quality"]
            sums: dict[int, Counter] = defaultdict(Counter)
            for row in answer["by_process"]:
                sums[row["pid"]].update({name: value for name, value in row.items() if isinstance(value, int)})
            if complete(sums.__getitem__) or time.monotonic() > end:
                return sums.__getitem__
            time.sleep(0.05)

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(PATIENCE_SECONDS)

    def _read_answer(self) -> dict:
        line = self.process.stdout.readline()
        assert line, "the collecting process ended: see its stderr"
        answer = json.loads(line)
        assert not answer.get("impossible"), answer["impossible"]
        return answer


@pytest.fixture
def start_reader() -> Iterator[Callable[..., Reader]]:
    """Return a function that starts a collecting process; it ends with the test."""
    readers = []

    def start(ledger_capacity: int = 65536) -> Reader:
        readers.append(Reader(ledger_capacity))
        return readers[-1]

    yield start
    for reader in readers:
        reader.stop()


class SharedReader:
    """One collecting process for many tests: its start takes seconds, where the kernel is emulated half a minute."""

    def __init__(self) -> None:
        self._reader: Reader | None = None
        self._failed_before = 0

    def begin(self, failed: int) -> Reader:
        """Return the reader, with the beginning of its measurements now; a new one after a further failed test."""
        if self._reader is None or failed != self._failed_before or self._reader.process.poll() is not None:
            self.stop()
            self._reader, self._failed_before = Reader(65536), failed
        else:
            self._reader.begin()
        return self._reader

    def stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None


@pytest.fixture(scope="package")
def shared_reader() -> Iterator[SharedReader]:
    """Return what the tests of this folder share."""
    shared = SharedReader()
    yield shared
    shared.stop()


@pytest.fixture
def message_tracepoints() -> None:
    """Skip the test where the message probes are fexit programs, which see fewer ways to send and receive."""
    if warning := message_probes_warning():
        pytest.skip(warning)


@pytest.fixture
def reader(shared_reader: SharedReader, request: pytest.FixtureRequest) -> Reader:
    """Return a collecting process that has read its baseline.

    A test that fills a map, ends the process, or compares totals of the whole host starts its own: `start_reader`.
    """
    return shared_reader.begin(request.session.testsfailed)


class Program:
    """A program that makes traffic. It prints one JSON object per line, and ends at the end of its standard input."""

    def __init__(self, *command: object) -> None:
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def receive(self) -> dict:
        """Return the next object; skip the test where the kernel lacks the tested feature."""
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(PATIENCE_SECONDS)
            message = self.process.stderr.read().strip()
            if self.process.returncode == UNAVAILABLE:
                pytest.skip(message)
            pytest.fail(message or "the program ended without a message")
        return json.loads(line)

    def proceed(self, command: str = "") -> None:
        """Let the program continue."""
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Let the program end by itself."""
        self.process.stdin.close()
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.process.stderr.read()

    def remove(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Namespace:
    """A network namespace with loopback only, so that the kernel's totals in it are those of the test."""

    def __init__(self, run: Callable[..., Program]) -> None:
        self._run = run
        script = "ip link set lo up && echo '{}' && exec cat"
        self._holder = run("unshare", "--net", "sh", "-c", script)
        self._holder.receive()
        self.inode = Path(f"/proc/{self._holder.pid}/ns/net").stat().st_ino

    def command(self, *command: object) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *map(str, command)]

    def run(self, *command: object) -> Program:
        """Start a program inside."""
        return self._run(*self.command(*command))

    def set(self, *command: object) -> None:
        """Run a command inside to its end."""
        subprocess.run(self.command(*command), check=True, capture_output=True)

    def totals(self) -> dict[str, int]:
        """Return the kernel's totals in it: the Tcp lines of /proc/net/snmp (RFC 4022)."""
        lines = Path(f"/proc/{self._holder.pid}/net/snmp").read_text(encoding="ascii").splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Tcp:"))
        return dict(zip(names, map(int, values), strict=True))


@pytest.fixture
def run() -> Iterator[Callable[..., Program]]:
    """Return a function that starts a program; it is killed at the end of the test."""
    programs = []

    def start(*command: object) -> Program:
        programs.append(Program(*command))
        return programs[-1]

    yield start
    for program in reversed(programs):
        program.remove()


@pytest.fixture
def namespace(run: Callable[..., Program]) -> Namespace:
    """Return a new network namespace."""
    return Namespace(run)


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that builds one of generators/*.c and returns its path."""
    folder = tmp_path_factory.mktemp("generators")

    @cache
    def build(name: str) -> Path:
        warnings = ("-Wall", "-Wextra", "-Werror")
        source, program = GENERATORS / f"{name}.c", folder / name
        subprocess.run(["gcc", "-O2", *warnings, "-pthread", "-o", program, source], check=True)
        return program

    return build
