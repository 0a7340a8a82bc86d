"""A guest: a stock kernel under virtme-ng, emulated, with the host's root file system and one shared folder."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from kernels import Kernel, kernel_root, virtme_path

GUEST_INIT = Path(__file__).with_name("guest-init")
BOOT_SECONDS, RUN_SECONDS = 180, 7200
CONSOLE_TAIL = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a guest. `failure`: reason why its command did not end, with the end of its console; or ""."""

    release: str
    boot_seconds: float
    seconds: float
    failure: str


class Guest:
    """A running guest: boots a kernel, runs a shell script in it, and switches itself off."""

    def __init__(self, kernel: Kernel, script: str, share: Path) -> None:
        """Start it. `share`: a new folder for guest and host, with the logs of both after its end.

        Raises:
            Unavailable: the kernel cannot be downloaded.
        """
        root, virtme = kernel_root(kernel), virtme_path()
        shutil.rmtree(share, ignore_errors=True)
        share.mkdir(parents=True)
        (share / "command").write_text(script, encoding="utf-8")
        self._share = share
        self._began = time.monotonic()
        self._boot_seconds = 0.0
        with (share / "console.log").open("wb") as output, (share / "kernel.log").open("wb") as messages:
            self._process = subprocess.Popen(
                _command(root, share),
                env=os.environ | {"PYTHONPATH": str(virtme)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=messages,
                start_new_session=True,
            )

    def poll(self) -> Outcome | None:
        """Return its outcome, or None while it runs; one that takes too long is ended."""
        ended, seconds = self._process.poll() is not None, time.monotonic() - self._began
        if not self._boot_seconds and (self._share / "release").exists():
            self._boot_seconds = seconds
        if ended:
            failure = "" if (self._share / "status").exists() else "the guest ended before its command"
        elif not self._boot_seconds and seconds > BOOT_SECONDS:
            failure = f"the guest was not up after {BOOT_SECONDS} s"
        elif seconds > RUN_SECONDS:
            failure = f"the guest was not done after {RUN_SECONDS} s"
        else:
            return None
        self.end()
        return self._outcome(seconds, failure)

    def end(self) -> None:
        """End it at once, with its helpers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _outcome(self, seconds: float, failure: str) -> Outcome:
        release = (self._share / "release").read_text(encoding="ascii").strip() if self._boot_seconds else ""
        if failure:
            logs = [self._share / name for name in ("kernel.log", "console.log")]
            failure = "\n".join([failure, *(line for log in logs for line in _lines(log)[-CONSOLE_TAIL:])])
        return Outcome(release, self._boot_seconds, seconds, failure)


def _command(root: Path, share: Path) -> list[str]:
    (image,) = [*root.glob("boot/vmlinuz-*"), *root.glob("usr/lib/modules/*/vmlinuz")]
    options = [
        f"--kimg={image}",
        "--mods=auto",
        "--disable-kvm",  # an existing /dev/kvm can hang when it is nested
        "--force-9p",
        "--disable-microvm",
        "--disable-monitor",
        "--verbose",
        "--memory=2G",
        "--cpus=2",
        # virtme-ng's initramfs uses the first init=. Its own init needs udev, and takes three times as long.
        f"--kopt=init={GUEST_INIT}",
        "--kopt=console=ttyS0",
        "--kopt=panic=-1",
        "--kopt=mitigations=off",  # for faults of real CPUs; they would take half of the time
    ]
    qemu = [
        "-no-reboot",
        *("-cpu", "Nehalem"),  # the oldest CPU for numpy: wide vector instructions are slow to emulate
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={share},mount_tag=share,security_model=none"),
    ]
    return [sys.executable, "-m", "virtme.commands.run", *options, *(f"--qemu-opt={word}" for word in qemu)]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
