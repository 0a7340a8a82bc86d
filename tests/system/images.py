"""Disk images of Debian with systemd, and all that the package depends on; built once, then taken from a cache."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("BPF_WATCHDOG_SYSTEM_CACHE", "/var/tmp/bpf-watchdog-system"))
GUEST = Path(__file__).with_name("guest")
AGENT = ("agent.py", "agent.service")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR, SECURITY_MIRROR = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
PACKAGES = ("systemd-sysv", "udev", "kmod", "linux-image-amd64", "procps", "python3", "ansible-core", "python3-apt")
KERNEL_TEST_PACKAGES = ("gcc", "iperf3", "iproute2", "libc6-dev", "nftables", "strace", "util-linux")
IMAGE_BYTES = 4 << 30  # sparse
# An initial file system with everything takes longer than all other steps together.
INITRD_HOOK = """#!/bin/sh
[ "$1" != prereqs ] || exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk ext4
"""
# They would change files while the test compares them, and take CPU time.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "systemd-tmpfiles-clean.timer", "getty@tty1.service", "serial-getty@ttyS0.service"),
)


@dataclass(frozen=True, slots=True)
class Image:
    """Files that qemu boots."""

    disk: Path
    kernel: Path
    initrd: Path


def dependencies(package: Path) -> list[str]:
    """Return the names of the packages that a .deb depends on, of alternatives the first one."""
    command = ["dpkg-deb", "--field", str(package), "Depends"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sorted({re.split(r"[ (:|]", part.strip())[0] for part in text.split(",")})


def image(suite: str, needed: list[str], *, with_kernel_tests: bool) -> Image:
    """Return the image of a suite of Debian with the packages `needed`; build it if the cache does not have it."""
    packages = (*PACKAGES, *needed, *(KERNEL_TEST_PACKAGES if with_kernel_tests else ()))
    parts = [file.read_bytes() for file in (Path(__file__), *(GUEST / name for name in AGENT))]
    key = hashlib.sha256(b"\0".join([*parts, " ".join(packages).encode()])).hexdigest()[:12]
    folder = CACHE / f"{suite}-{key}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=CACHE) as scratch:
            _build(suite, packages, Path(scratch))
            made = Path(scratch) / "image"
            made.rename(folder)
    return Image(folder / "disk", folder / "kernel", folder / "initrd")


def _build(suite: str, packages: tuple[str, ...], scratch: Path) -> None:
    print(f"building an image of {suite}", flush=True)
    scratch.chmod(0o755)  # for the account of apt
    root, made, overlay = scratch / "root", scratch / "image", scratch / "overlay"
    made.mkdir()
    _write_overlay(overlay, suite)
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--keyring={KEYRING}"),
            f"--include={','.join(packages)}",
            f'--essential-hook=cp -a {overlay}/. "$1"/',
            *(suite, str(root)),
            f"deb {MIRROR} {suite} main",
            f"deb {SECURITY_MIRROR} {suite}-security main",
        ],
        check=True,
    )
    for name, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        [file] = root.glob(f"boot/{pattern}")
        shutil.copy(file, made / name)
    # Empty: systemd makes one at the first boot. apt's settings of the builder are not those of a host.
    (root / "etc/machine-id").write_text("", encoding="ascii")
    with (made / "disk").open("wb") as disk:
        disk.truncate(IMAGE_BYTES)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-d", str(root), str(made / "disk")], check=True)
    shutil.rmtree(root)


def _write_overlay(overlay: Path, suite: str) -> None:
    """Write the files that the image has beside those of its packages."""
    units, wanted = overlay / "etc/systemd/system", overlay / "etc/systemd/system/multi-user.target.wants"
    hooks, settings = overlay / "etc/initramfs-tools/hooks", overlay / "etc/initramfs-tools/conf.d"
    helpers = overlay / "usr/local/lib/system-test"
    for folder in (wanted, hooks, settings, helpers):
        folder.mkdir(parents=True)
    for name in MASKED:
        (units / name).symlink_to("/dev/null")
    shutil.copy(GUEST / "agent.service", units / "system-test-agent.service")
    (wanted / "system-test-agent.service").symlink_to("/etc/systemd/system/system-test-agent.service")
    shutil.copy(GUEST / "agent.py", helpers / "agent.py")
    (settings / "guest.conf").write_text("MODULES=list\nCOMPRESS=gzip\n", encoding="ascii")
    (hooks / "guest").write_text(INITRD_HOOK, encoding="ascii")
    (hooks / "guest").chmod(0o755)
    (overlay / "etc/hostname").write_text(f"{suite}-guest\n", encoding="ascii")
    (overlay / "etc/hosts").write_text(f"127.0.0.1 localhost {suite}-guest\n", encoding="ascii")
    (overlay / "etc/fstab").write_text("", encoding="ascii")
    for folder, _, _ in os.walk(overlay):
        Path(folder).chmod(0o755)
