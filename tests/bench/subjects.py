"""The compared subjects: the daemon, the daemon with its message probes, the obvious program, bpftrace."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = str(Path(sys.executable).with_name("bpf-watchdog"))
TRACEFS = Path("/sys/kernel/tracing")
PATIENCE_SECONDS = 60

# Rules of every kind over metrics of every kind, repeated with other thresholds up to the wanted number.
_KINDS = (
    ("connects", "rate", '"process", "unit"', 5e3),
    ("established", "rate", '"process", "unit"', 1e4),
    ("connect_failures / connects", "rate", '"process"', 0.5),
    ("bytes_sent", "rate", '"process", "unit"', 1e12),
    ("bytes_received", "rate", '"process", "unit"', 1e12),
    ("retransmits / packets_sent", "rate", '"remote"', 0.5),
    ("open", "last", '"process", "state"', 1e9),
    ("connect_latency", "p95", '"process"', 1e3),
    ("rtt", "p99", '"process"', 1e3),
    ("accepts", "sum", '"local_port"', 1e9),
)


def rules_text(count: int, with_message_probes: bool = False) -> str:
    """Return the text of `count` rules that never fire."""
    texts = []
    for number in range(count):
        metric, stat, by, limit = _KINDS[number % len(_KINDS)]
        if with_message_probes and number == 0:
            metric, stat, by, limit = "response_latency", "p99", '"process"', 1e3
        limit *= 1 + number / 1000
        texts.append(
            f'[[rule]]\nid = "rule-{number}"\nsummary = "{{value}} over {{threshold}}"\nmetric = "{metric}"\n'
            f'stat = "{stat}"\nwindow = "10s"\nby = [{by}]\nfire_above = {{ warning = {limit} }}\n'
        )
    return "\n".join(texts)


class Subject:
    """A running subject. `output`: file for its output; a full pipe would block it."""

    def __init__(self, process: subprocess.Popen, output: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._output = output

    def wait_for(self, pattern: str) -> None:
        """Wait until its output contains the pattern."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, self._output.read_text()):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no {pattern!r} from {self.process.args}: {self._output.read_text()}")
            time.sleep(0.005)

    def finish(self, stop: int) -> str:
        """Stop it by a signal and return its whole output."""
        self.process.send_signal(stop)
        self.process.wait(PATIENCE_SECONDS)
        return self._output.read_text()


@contextlib.contextmanager
def started(*command: object, stderr: int) -> Iterator[Subject]:
    """Run a command until the end of the context."""
    with tempfile.NamedTemporaryFile(prefix="watchdog-bench-") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=stderr, text=True
        )
        try:
            yield Subject(process, Path(output.name))
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def daemon(rules: int = 0, with_message_probes: bool = False) -> Iterator[Subject]:
    """Run the daemon with `rules` rules, the shipped ones for 0, and notifications on its standard output."""
    with tempfile.TemporaryDirectory(prefix="watchdog-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the daemon gives up root
        settings = folder / "watchdog.toml"
        settings.write_text("")
        command = [COMMAND, "run", "--config", settings, "--state-dir", folder / "state", "--interval", "1s"]
        if rules:
            (folder / "rules").mkdir()
            (folder / "rules" / "bench.toml").write_text(rules_text(rules, with_message_probes))
            command += ["--rules", folder / "rules"]
        else:
            command += ["--rules", HERE.parents[1] / "rules"]
        with started(*command, stderr=subprocess.STDOUT) as subject:
            subject.wait_for("Ctrl-C stops")
            yield subject


@contextlib.contextmanager
def daemon_with_message_probes() -> Iterator[Subject]:
    """Run the daemon with a rule on response latency, so that its message probes are attached."""
    with daemon(1, with_message_probes=True) as subject:
        yield subject


@contextlib.contextmanager
def obvious() -> Iterator[Subject]:
    """Run the obvious program, counting the connections of the traffic generator."""
    with started(sys.executable, HERE / "obvious.py", "traffic", stderr=subprocess.DEVNULL) as subject:
        subject.wait_for("ready")
        yield subject


@contextlib.contextmanager
def bpftrace() -> Iterator[Subject]:
    """Run Debian's bpftrace, summing bytes per process each second."""
    with traced(), started("bpftrace", HERE / "bytes.bt", stderr=subprocess.STDOUT) as subject:
        subject.wait_for("ready")
        yield subject


@contextlib.contextmanager
def tcplife() -> Iterator[Subject]:
    """Run Debian's tcplife of libbpf-tools, which prints a line per ended connection."""
    with traced(), started("stdbuf", "-oL", "tcplife", stderr=subprocess.STDOUT) as subject:
        subject.wait_for("PID")  # its header, after its program is attached
        yield subject


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """Mount tracefs if it is not mounted: bpftrace needs it."""
    if any(TRACEFS.iterdir()):
        yield
        return
    subprocess.run(["mount", "-t", "tracefs", "nodev", TRACEFS], check=True)
    try:
        yield
    finally:
        for _ in range(50):  # perf events are released after a grace period
            if subprocess.run(["umount", TRACEFS], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)


SUBJECTS: dict[str, Callable[[], contextlib.AbstractContextManager[Subject]]] = {
    "bpf-watchdog": daemon,
    "with --messages": daemon_with_message_probes,
    "obvious program": obvious,
    "bpftrace": bpftrace,
    "tcplife": tcplife,
}


def traffic(program: Path, kind: str, count: int, size: int = 64) -> dict:
    """Run the generator to its end and return its own counts."""
    command = [program, kind, str(count), str(size)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@contextlib.contextmanager
def built() -> Iterator[Path]:
    """Build the traffic generator; its file name is the name of its process."""
    with tempfile.TemporaryDirectory(prefix="watchdog-bench-") as folder:
        program = Path(folder) / "traffic"
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / "traffic.c"], check=True)
        yield program


@contextlib.contextmanager
def held(program: Path, sockets: int, active_percent: int = 0) -> Iterator[Callable[[], None]]:
    """Hold `sockets` connected sockets open; each call sends a byte over `active_percent` of the connections."""
    command = [program, "hold", str(sockets), str(active_percent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def send() -> None:
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()

        process.stdout.readline()
        try:
            yield send
        finally:
            process.stdin.close()
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def sharing(program: Path, processes: int) -> Iterator[int]:
    """Share one full table of descriptors among `processes`; yield the number of files that a walk over files meets."""
    with subprocess.Popen(
        [program, "files", str(processes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        files = json.loads(process.stdout.readline())["files"]
        try:
            yield files
        finally:
            process.stdin.close()
