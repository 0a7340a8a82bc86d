"""A host for tools that write to /etc and /usr/bin: a mount namespace in which the daemon has its standard paths."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Self

# Overlays keep the changes in a tmpfs that ends with the namespace.
SETUP = """\
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
for folder in usr/bin etc var/lib; do
  mkdir -p "$1/$folder/upper" "$1/$folder/work"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$1/$folder/upper,workdir=$1/$folder/work" "/$folder"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system
echo ready
exec cat
"""
# In place of systemd, which runs in the whole-system test: only the daemon's own service.
SYSTEMCTL = """\
#!/bin/sh
start() {
  setsid /usr/bin/bpf-watchdog run </dev/null >>/run/watchdog.log 2>&1 &
  echo $! >/run/watchdog.pid
  for i in $(seq 240); do
    /usr/bin/bpf-watchdog rules >/dev/null 2>&1 && exit 0
    sleep 1
  done
  exit 1
}
stop() {
  kill "$(cat /run/watchdog.pid)"
  while kill -0 "$(cat /run/watchdog.pid)" 2>/dev/null; do sleep 0.2; done
}
case "$*" in
*--version*) echo "systemd 252 (252)" ;;
*is-enabled*) echo enabled ;;
*is-active*) exec /usr/bin/bpf-watchdog rules >/dev/null 2>&1 ;;
*restart*) stop; start ;;
*stop*) stop ;;
*start*) start ;;
esac
"""


class IsolatedHost:
    """The namespace, while the `with` block runs. Its /etc, /usr/bin, /var/lib and /run are its own."""

    def __init__(self, folder: Path, command: Path) -> None:
        self._command = command
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", SETUP, "sh", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self.write("/usr/bin/systemctl", SYSTEMCTL, mode="755")
        self.write("/usr/bin/bpf-watchdog", f'#!/bin/sh\nexec {self._command} "$@"\n', mode="755")
        return self

    def __exit__(self, *exception: object) -> None:
        self.run("sh", "-c", "[ ! -e /run/watchdog.pid ] || systemctl stop")
        self._holder.communicate()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command, with both of its outputs as one text."""
        return subprocess.run(
            ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file in the namespace."""
        subprocess.run(
            ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "sh", "-c",
             'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"', "sh", path, mode],
            input=text, text=True, check=True,
        )  # fmt: skip

    def read(self, path: str) -> str:
        """Return the text of a file in the namespace."""
        done = self.run("cat", path)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def rules_in_force(self) -> set[str]:
        """Return the ids of the daemon's rules, without those about itself."""
        rules = json.loads(self.run("/usr/bin/bpf-watchdog", "rules", "--json").stdout)
        return {one["id"] for one in rules if not one["id"].startswith("watchdog-")}
