"""A program run under a deadline: no shell, a clean environment, its process group killed when it ends or time is up.

It is started by posix_spawn(3) and not by `subprocess`, which leaves a child the signals that the daemon's threads have
blocked.

Source: pidfd_open(2), Linux 5.3: a descriptor that becomes readable when the process ends, before it is waited for, so
that its number can belong to nobody else when the group is killed.
"""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.transport.deadline import Deadline

MAX_OUTPUT_BYTES = 4_096

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}  # Python ignores some, nohup and shells others
_CHUNK = 65_536
_SECONDS_TO_DIE = 1.0


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a program ended: its exit code, less than 0 for the signal that killed it; and the last that it wrote."""

    exit_code: int
    output: bytes


def run_process(
    command: Sequence[str], stdin_data: bytes, environment: Mapping[str, str], deadline: Deadline
) -> ProcessResult:
    """Run `command`, an absolute path and arguments, with `given` on its standard input.

    Nothing of our own environment is passed on: it can hold secrets. What the program leaves running in its process
    group is killed with it.

    Raises:
        DeliveryError: `timeout`, or `command` when it can't be started.
    """
    with _pipe() as (stdin, feed), _pipe() as (results, stdout):
        actions = [(os.POSIX_SPAWN_DUP2, stdin.fileno(), 0)]
        actions += [(os.POSIX_SPAWN_DUP2, stdout.fileno(), descriptor) for descriptor in (1, 2)]
        closing = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()]
        try:
            pid = os.posix_spawn(
                command[0],
                list(command),
                {**_ENVIRONMENT, **environment},
                file_actions=[*actions, *closing],
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        except OSError as error:
            raise DeliveryError(
                DeliveryErrorReason.COMMAND, f"cannot start {command[0]}: {error.strerror}", retryable=True
            ) from None
        stdin.close()
        stdout.close()
        ended = os.pidfd_open(pid)
        try:
            return _attend(command[0], pid, _ProcessPipes(feed, results, ended, stdin_data), deadline)
        finally:
            os.close(ended)


def _attend(name: str, pid: int, pipes: _ProcessPipes, deadline: Deadline) -> ProcessResult:
    try:
        in_time = pipes.transfer_until_exit(deadline)
    finally:
        # Before it is waited for: until then the number is its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    # One that sleeps in the kernel dies when it wakes: that is not waited for.
    status = os.waitpid(pid, 0)[1] if pipes.wait_for_exit(_SECONDS_TO_DIE) else None
    if not in_time or status is None:
        raise DeliveryError(DeliveryErrorReason.TIMEOUT, f"{name} has not ended in time", retryable=True)
    return ProcessResult(os.waitstatus_to_exitcode(status), pipes.last_output())


class _ProcessPipes:
    """What goes into a program and comes out of it, never waited for longer than it runs."""

    def __init__(self, feed: io.FileIO, results: io.FileIO, ended: int, given: bytes) -> None:
        self._feed, self._results, self._ended = feed, results, ended
        self._given = memoryview(given)
        self._output = b""
        for pipe in (feed, results):
            os.set_blocking(pipe.fileno(), False)

    def transfer_until_exit(self, deadline: Deadline) -> bool:
        """Feed and read the program until it ends; return whether it did so in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._feed, selectors.EVENT_WRITE)
            selector.register(self._results, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            while deadline.remaining() > 0:
                ready = {key.fileobj for key, _ in selector.select(deadline.remaining())}
                if self._feed in ready and not self._write():
                    selector.unregister(self._feed)
                    self._feed.close()
                if self._results in ready and not self._read():
                    selector.unregister(self._results)
                if self._ended in ready:
                    return True
        return False

    def wait_for_exit(self, seconds: float) -> bool:
        """Return whether the program has ended, after `seconds` at the latest."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._ended, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def last_output(self) -> bytes:
        """Return the last that the program wrote; what is left in the pipe is no more than a pipe holds."""
        for _ in range(16):
            if not self._read():
                break
        return self._output

    def _write(self) -> bool:
        """Return whether there is more to write."""
        try:
            written = self._feed.write(self._given[:_CHUNK])
        except OSError:  # it does not read its input, or no more of it
            return False
        self._given = self._given[written or 0 :]  # None: the pipe is full
        return bool(self._given)

    def _read(self) -> bool:
        """Return whether there may be more to read."""
        chunk = self._results.read(_CHUNK)
        self._output = (self._output + (chunk or b""))[-MAX_OUTPUT_BYTES:]
        return chunk != b""


def _inherited() -> Iterator[int]:
    """Return the descriptors that we were started with: our own close by themselves when a program starts."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - of numbers, not paths
        with contextlib.suppress(OSError):  # closed since
            if int(name) > 2 and os.get_inheritable(int(name)):  # noqa: PLR2004 - standard error
                yield int(name)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    reading, writing = os.pipe()
    with io.FileIO(reading, "r") as reader, io.FileIO(writing, "w") as writer:
        yield reader, writer
