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


def run_in_guest(kernel: Kernel, script: str, share: Path) -> Outcome:
    """Boot a kernel, run a shell script in it, and wait until it is off. `share`: a new folder for guest and host.

    Raises:
        Unavailable: the kernel cannot be downloaded.
    """
    root, virtme = kernel_root(kernel), virtme_path()
    shutil.rmtree(share, ignore_errors=True)
    share.mkdir(parents=True)
    (share / "command").write_text(script, encoding="utf-8")
    began = time.monotonic()
    console = share / "console.log"
    with console.open("wb") as output, (share / "kernel.log").open("wb") as messages:
        process = subprocess.Popen(
            _command(root, share),
            env=os.environ | {"PYTHONPATH": str(virtme)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=messages,
            start_new_session=True,
        )
    try:
        failure, booted = _watch(process, share, began)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    release = (share / "release").read_text(encoding="ascii").strip() if booted else ""
    if failure:
        lines = [line for name in ("kernel.log", "console.log") for line in _lines(share / name)[-CONSOLE_TAIL:]]
        failure = "\n".join([failure, *lines])
    return Outcome(release, booted, time.monotonic() - began, failure)


def _watch(process: subprocess.Popen[bytes], share: Path, began: float) -> tuple[str, float]:
    """Wait for the guest's end; return the reason of a failure, or "", and the seconds until it was up."""
    booted = 0.0
    while process.poll() is None:
        seconds = time.monotonic() - began
        if not booted and (share / "release").exists():
            booted = seconds
        if not booted and seconds > BOOT_SECONDS:
            return f"the guest was not up after {BOOT_SECONDS} s", booted
        if seconds > RUN_SECONDS:
            return f"the guest was not done after {RUN_SECONDS} s", booted
        time.sleep(0.5)
    return ("" if (share / "status").exists() else "the guest ended before its command"), booted


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
