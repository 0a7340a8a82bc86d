"""Bare Debian systems in folders, and the list of everything in them. Root only."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("WATCHDOG_CHROOT_CACHE", "/var/tmp/bpf-watchdog-bare-systems"))
APT = "apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0"

# Mounts are private to the command.
_ENTER = """
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind --make-rslave /sys "$1/sys"
mount --rbind --make-rslave /dev "$1/dev"
root=$1
shift
# Not chroot(8) alone: within a changed root the kernel refuses namespaces of users.
cd "$root"
pivot_root . mnt
umount --lazy /mnt
cd /
exec "$@"
"""
# Files that every installation of any package changes, and those with a random content.
_CHANGING = (
    "etc/group-",
    "etc/gshadow-",
    "etc/ld.so.cache",
    "etc/machine-id",
    "etc/passwd-",
    "etc/shadow-",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg/available",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/status",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers",
    "var/log",
)
_MOUNTED = ("dev", "proc", "sys")


class Chroot:
    """A Debian system in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(
        self, script: str, *, check: bool = True, own_pids: bool = True, show: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of /bin/sh -eu; return its output, stdout and stderr together.

        `own_pids`: a namespace for its processes, which end with it; without it they have the host's numbers.
        `show`: print the output instead, while it comes.
        """
        namespaces = ["--mount", "--pid", "--fork"] if own_pids else ["--mount"]
        command = ["unshare", *namespaces, "/bin/sh", "-euc", _ENTER, "enter", str(self.root)]
        environment = {
            name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name == "PIP_CERT"
        } | {
            "DEBIAN_FRONTEND": "noninteractive",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        done = subprocess.run(
            [*command, "/bin/sh", "-euc", script],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"exit code {done.returncode} of:\n{script}\n{done.stdout}")
        return done

    def entries(self) -> dict[str, tuple[object, ...]]:
        """Return kind, mode, owner and content of each file, folder and link, by path."""
        return dict(self._entries(self.root))

    def _entries(self, folder: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
        for path in sorted(folder.iterdir()):
            name = str(path.relative_to(self.root))
            if name in _MOUNTED or any(name == one or name.startswith(f"{one}/") for one in _CHANGING):
                continue
            status = path.lstat()
            content = None
            if stat.S_ISLNK(status.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            yield name, (stat.filemode(status.st_mode), status.st_uid, status.st_gid, content)
            if stat.S_ISDIR(status.st_mode):
                yield from self._entries(path)


def field(package: Path, name: str) -> str:
    """Return a field of the control file of a Debian package."""
    command = ["dpkg-deb", "--field", package, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def bare_system(release: str) -> Iterator[Chroot]:
    """Unpack a Debian system with nothing but apt; it is removed at the end. The first one of a release is fetched."""
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"{release}.tar"
    if not archive.exists():
        unfinished = archive.with_suffix(".new.tar")
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", release, str(unfinished)], check=True)
        unfinished.rename(archive)
    root = CACHE / f"{release}.{os.getpid()}"
    root.mkdir()
    try:
        subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(root)], check=True)
        # Services are not started here; deb-systemd-invoke(1p) asks this script.
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        yield Chroot(root)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)
