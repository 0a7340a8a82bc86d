"""An emulated machine that boots an image, and runs scripts in it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images import Image

BOOT_SECONDS = 900.0  # half a minute on a machine at rest
RUN_SECONDS = 1800.0
CONSOLE_TAIL = 40
SHARED = "security_model=none,readonly=on,multidevs=remap"


class GuestError(Exception):
    """A script failed in the guest; with its output."""


class GuestLost(GuestError):
    """The guest does not answer any more; with the end of its console."""


@dataclass(frozen=True, slots=True)
class Done:
    """Exit code and output of a script; seconds as the host measured them."""

    code: int
    output: str
    seconds: float


class Machine:
    """The running guest. Its disk is a copy of the image that is lost at its end, and survives a reboot."""

    def __init__(self, image: Image, shares: Mapping[str, Path], folder: Path) -> None:
        """Boot, and wait for the agent.

        `shares`: folders by mount tag, read-only in the guest. `folder`: for the socket, logs and changes of the disk.
        """
        self.console = folder / "console.log"
        self._boot, self._requests, self._pending = "", 0, b""
        with (folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                _command(image, shares, folder),
                env=os.environ | {"TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(folder / "agent")
            self.boot_seconds = self.await_boot()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the guest at once."""
        self._port.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def await_boot(self) -> float:
        """Wait until the guest has booted since the last call; return the seconds of waiting."""
        began = time.monotonic()
        while True:
            message = self._read(began + BOOT_SECONDS)
            if message.get("boot", self._boot) != self._boot:
                self._boot = message["boot"]
                return time.monotonic() - began

    def run(self, script: str, timeout: float = RUN_SECONDS) -> Done:
        """Run a script of bash as root and wait for its end; any exit code is accepted."""
        self._requests += 1
        began = time.monotonic()
        self._port.sendall(json.dumps({"id": self._requests, "script": script}).encode() + b"\n")
        while True:
            message = self._read(began + timeout)
            if "boot" in message:
                raise GuestError(f"the guest has rebooted during: {script}")
            if message.get("id") == self._requests:
                return Done(message["code"], message["output"], time.monotonic() - began)

    def answers(self) -> bool:
        """Return whether the guest still runs scripts."""
        with contextlib.suppress(GuestLost):
            return self.run("true", 60.0).code == 0
        return False

    def output(self, script: str) -> str:
        """Run a script that must succeed, and return its output without surrounding white space.

        Raises:
            GuestError: it failed.
        """
        done = self.run(f"set -e -o pipefail; {script}")
        if done.code:
            raise GuestError(f"exit code {done.code}: {script}\n{done.output}")
        return done.output.strip()

    def until(self, script: str, timeout: float = BOOT_SECONDS) -> float:
        """Run a script again and again until it succeeds; return the seconds until then.

        Raises:
            GuestError: it did not succeed in time.
        """
        began = time.monotonic()
        while (done := self.run(script)).code:
            if time.monotonic() > began + timeout:
                raise GuestError(f"waited {timeout:.0f} s in vain: {script}\n{done.output}")
            time.sleep(0.5)
        return time.monotonic() - began

    def console_tail(self) -> str:
        """Return the last lines of the console."""
        text = self.console.read_text(encoding="utf-8", errors="replace") if self.console.exists() else ""
        return "\n".join(text.splitlines()[-CONSOLE_TAIL:])

    def _connect(self, path: Path) -> None:
        until = time.monotonic() + 30
        while True:
            try:
                self._port.connect(str(path))
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.1)
            else:
                return

    def _read(self, until: float) -> dict[str, object]:
        """Return the next message of the agent."""
        while b"\n" not in self._pending:
            self._port.settimeout(max(0.01, until - time.monotonic()))
            try:
                data = self._port.recv(65536)
            except TimeoutError as error:
                raise GuestLost(f"the guest does not answer\n{self.console_tail()}") from error
            if not data:
                raise GuestLost(f"the guest has ended\n{self.console_tail()}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)


@contextlib.contextmanager
def booted(image: Image, shares: Mapping[str, Path], folder: Path) -> Iterator[Machine]:
    """Boot a machine for a block, and end it after it."""
    machine = Machine(image, shares, folder)
    try:
        yield machine
    finally:
        machine.stop()


def _command(image: Image, shares: Mapping[str, Path], folder: Path) -> list[str]:
    kernel_arguments = "root=/dev/vda rw console=ttyS0 mitigations=off panic=-1 fsck.mode=skip quiet"
    return [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048"),
        *("-cpu", "Nehalem"),  # the oldest CPU for numpy: wide vector instructions are slow to emulate
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", f"file:{folder / 'console.log'}"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", kernel_arguments),
        *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe"),
        *("-chardev", f"socket,id=agent,path={folder / 'agent'},server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=agent"),
        *("-device", "virtio-rng-pci"),
        *(word for tag, path in shares.items() for word in ("-virtfs", f"local,path={path},mount_tag={tag},{SHARED}")),
    ]
