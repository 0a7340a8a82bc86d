"""A child process under a deadline: no shell, a clean environment; its process group is killed at exit or deadline.

It is started with posix_spawn(3) instead of `subprocess`: a child of `subprocess` inherits the signals that the
daemon's threads have blocked.

Source: pidfd_open(2), Linux 5.3: the descriptor becomes readable when the process ends, before waitpid(2). Until then
the kernel does not reuse its pid, so that killing the group cannot hit another process.
"""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from watchdog.errors import DeliveryError, DeliveryErrorReason, UncertainDeliveryError
from watchdog.receivers.transport.deadline import Deadline

MAX_OUTPUT_BYTES = 4_096

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
# Reset in the child: Python ignores some signals, nohup and shells others.
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_CHUNK_BYTES = 65_536
_KILL_WAIT_SECONDS = 1.0

_unreaped: set[int] = set()  # killed processes that were in uninterruptible sleep
_reaping = threading.Lock()


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """Exit code of a child process, or minus the signal that killed it; and the last bytes of its output."""

    exit_code: int
    output: bytes


def run_process(
    command: Sequence[str], stdin_data: bytes, environment: Mapping[str, str], deadline: Deadline
) -> ProcessResult:
    """Run `command`, an absolute path and arguments, with `stdin_data` on its standard input.

    The child gets nothing of the daemon's environment, which can hold secrets. Processes that it leaves in its process
    group are killed when it ends.

    Raises:
        UncertainDeliveryError: it was killed, and may have done its work: `timeout`, at the deadline; `command`, for
            want of a descriptor.
        DeliveryError: `command`: it cannot be started.
    """
    _reap_ended()
    try:
        return _run(command, stdin_data, environment, deadline)
    except OSError as error:
        text = f"cannot start {command[0]}: {error.strerror}"
        raise DeliveryError(DeliveryErrorReason.COMMAND, text, retryable=True) from None


def _run(
    command: Sequence[str], stdin_data: bytes, environment: Mapping[str, str], deadline: Deadline
) -> ProcessResult:
    """Run `command`; raise OSError only before it has started."""
    with _pipe() as (stdin, stdin_writer), _pipe() as (output_reader, stdout):
        actions = [(os.POSIX_SPAWN_DUP2, stdin.fileno(), 0)]
        actions += [(os.POSIX_SPAWN_DUP2, stdout.fileno(), descriptor) for descriptor in (1, 2)]
        closing = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable_descriptors()]
        pid = os.posix_spawn(
            command[0],
            list(command),
            {**_ENVIRONMENT, **environment},
            file_actions=[*actions, *closing],
            setsid=True,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
        stdin.close()
        stdout.close()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # no descriptor is free any more
            _kill_group(pid)
            _unreaped.add(pid)
            text = f"{command[0]} was killed: {error.strerror}"
            raise UncertainDeliveryError(DeliveryErrorReason.COMMAND, text, retryable=True) from None
        try:
            pipes = _ProcessPipes(stdin_writer, output_reader, pidfd, stdin_data)
            return _wait_and_kill(command[0], pid, pipes, deadline)
        finally:
            os.close(pidfd)


def _wait_and_kill(name: str, pid: int, pipes: _ProcessPipes, deadline: Deadline) -> ProcessResult:
    try:
        in_time = pipes.transfer_until_exit(deadline)
    finally:
        _kill_group(pid)
    # A process in uninterruptible sleep dies only when it wakes up, so the wait is short.
    status = os.waitpid(pid, 0)[1] if pipes.wait_for_exit(_KILL_WAIT_SECONDS) else None
    if status is None:
        _unreaped.add(pid)
    if not in_time or status is None:
        raise UncertainDeliveryError(DeliveryErrorReason.TIMEOUT, f"{name} did not exit in time", retryable=True)
    return ProcessResult(os.waitstatus_to_exitcode(status), pipes.last_output())


def _kill_group(pid: int) -> None:
    """Kill the processes of a child, before waitpid(2): until then its pid is not reused."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _reap_ended() -> None:
    """Free the entries of former children that have ended since they were killed."""
    with _reaping:
        _unreaped.difference_update([pid for pid in tuple(_unreaped) if os.waitpid(pid, os.WNOHANG)[0]])


class _ProcessPipes:
    """Standard input and output of a child process; reads and writes end when the process ends."""

    def __init__(self, stdin: io.FileIO, output: io.FileIO, pidfd: int, stdin_data: bytes) -> None:
        self._stdin, self._output, self._pidfd = stdin, output, pidfd
        self._unwritten = memoryview(stdin_data)
        self._last_output = b""
        for pipe in (stdin, output):
            os.set_blocking(pipe.fileno(), False)

    def transfer_until_exit(self, deadline: Deadline) -> bool:
        """Write and read until the process ends; return False if the deadline passes first."""
        # poll(2) needs no descriptor of its own.
        with selectors.PollSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(self._pidfd, selectors.EVENT_READ)
            while deadline.remaining() > 0:
                ready = {key.fileobj for key, _ in selector.select(deadline.remaining())}
                if self._stdin in ready and not self._write():
                    selector.unregister(self._stdin)
                    self._stdin.close()
                if self._output in ready and not self._read():
                    selector.unregister(self._output)
                if self._pidfd in ready:
                    return True
        return False

    def wait_for_exit(self, seconds: float) -> bool:
        """Wait at most `seconds`; return whether the process has ended."""
        with selectors.PollSelector() as selector:
            selector.register(self._pidfd, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def last_output(self) -> bytes:
        """Return the last bytes of output, the rest in the pipe included; that is at most the capacity of a pipe."""
        for _ in range(16):
            if not self._read():
                break
        return self._last_output

    def _write(self) -> bool:
        """Return whether more is left to write."""
        try:
            written = self._stdin.write(self._unwritten[:_CHUNK_BYTES])
        except OSError:  # the process has closed its standard input
            return False
        self._unwritten = self._unwritten[written or 0 :]  # None: the pipe is full
        return bool(self._unwritten)

    def _read(self) -> bool:
        """Return whether more output may come."""
        chunk = self._output.read(_CHUNK_BYTES)
        self._last_output = (self._last_output + (chunk or b""))[-MAX_OUTPUT_BYTES:]
        return chunk != b""


def _inheritable_descriptors() -> Iterator[int]:
    """Return the descriptors that the daemon inherited; those that it opened itself are closed at exec."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are numbers, not paths
        with contextlib.suppress(OSError):  # closed meanwhile
            if int(name) > 2 and os.get_inheritable(int(name)):  # noqa: PLR2004 - standard error
                yield int(name)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    read_fd, write_fd = os.pipe()
    with io.FileIO(read_fd, "r") as reader, io.FileIO(write_fd, "w") as writer:
        yield reader, writer
