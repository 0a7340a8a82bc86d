"""Install, use, upgrade, remove and purge the Debian package in bare systems; `make test-deb` runs it.

The system of Debian 12 is then upgraded to Debian 13, with the package configured.

usage: bare_systems.py DEB RELEASE …

Nothing runs as process 1 in there, so the service is enabled and not started.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chroot import APT, Chroot, bare_system, field

INSTALLED = """
test "$(bpf-watchdog --version)" = "bpf-watchdog $VERSION"
bpf-watchdog --help >/dev/null
bpf-watchdog check
bpf-watchdog check --here
test "$(id -u bpf-watchdog)" = 61087
test "$(stat -c '%U:%G %a' /etc/bpf-watchdog)" = 'root:bpf-watchdog 750'
test "$(stat -c '%U:%G %a' /etc/bpf-watchdog/watchdog.toml)" = 'root:bpf-watchdog 640'
test -e /etc/systemd/system/multi-user.target.wants/bpf-watchdog.service
# Each module was compiled at the installation, and the product's own TOML is read.
find /usr/lib/bpf-watchdog -name '*.py' | wc -l >/tmp/sources
find /usr/lib/bpf-watchdog -name '*.pyc' | wc -l | diff - /tmp/sources
rm /tmp/sources
/usr/lib/bpf-watchdog/bin/python3 -I -c '
import tomli, watchdog
from watchdog.resources import bpf_folder, shipped_rules_folder
paths = tomli.__file__, watchdog.__file__, str(bpf_folder()), str(shipped_rules_folder())
assert all(path.startswith("/usr/lib/bpf-watchdog/") for path in paths), paths
'
"""

STATE = """
import sqlite3, sys
with sqlite3.connect("/var/lib/bpf-watchdog/state.sqlite3") as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS kept (text)")
    connection.execute(f"PRAGMA user_version = {int(sys.argv[1])}")
"""

# The first call of a program of postinst ends dpkg and postinst, as a crash or a loss of power does.
KILLER = """
mkdir /tmp/killer
cat >/tmp/killer/systemd-sysusers <<'END'
#!/bin/sh
dpkg=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$PPID/status")
kill -KILL "$dpkg" "$PPID"
END
chmod 755 /tmp/killer/systemd-sysusers
! PATH=/tmp/killer:$PATH dpkg --install /tmp/watchdog.deb
rm -r /tmp/killer
test "$(dpkg-query -f '${db:Status-Status}' -W bpf-watchdog)" = half-configured
dpkg --configure --pending
"""

# Property of others: a folder mounted among the rules, the target of a link, the group's other members.
SHARED = """
mkdir /srv/rules /srv/secrets /var/lib/bpf-watchdog
touch /srv/rules/precious /srv/secrets/precious
mount --bind /srv/rules /etc/bpf-watchdog/rules.d
mount -t tmpfs none /var/lib/bpf-watchdog
touch /var/lib/bpf-watchdog/state.sqlite3
dpkg --purge bpf-watchdog
test -e /srv/rules/precious
test -z "$(ls -A /var/lib/bpf-watchdog)"
umount /etc/bpf-watchdog/rules.d /var/lib/bpf-watchdog
rm -r /etc/bpf-watchdog /var/lib/bpf-watchdog
dpkg --install /tmp/watchdog.deb
rm -r /etc/bpf-watchdog/secrets
ln -s /srv/secrets /etc/bpf-watchdog/secrets
ln -s /srv/rules /var/lib/bpf-watchdog
dpkg --purge bpf-watchdog
test -e /srv/rules/precious
test -e /srv/secrets/precious
rm -r /srv/rules /srv/secrets
"""

NO_ACCOUNT = 'test -z "$(getent passwd bpf-watchdog; getent group bpf-watchdog)"'
NEXT_RELEASE = {"bookworm": "trixie"}
# Nobody answers: changed files of the administrator stay.
RELEASE_UPGRADE = f"""
echo '# by hand' >>/etc/bpf-watchdog/watchdog.toml
sed -i "s/$RELEASE/$NEXT/g" /etc/apt/sources.list
{APT} update
{APT} full-upgrade --yes -o Dpkg::Options::=--force-confold
{APT} autoremove --yes --purge
. /etc/os-release
test "$VERSION_CODENAME" = "$NEXT"
grep -q '# by hand' /etc/bpf-watchdog/watchdog.toml
test -s /var/lib/bpf-watchdog/state.sqlite3
"""


class Checks:
    """The checks of one release; each prints a line with its time."""

    def __init__(self, package: Path, release: str) -> None:
        self.package = package
        self.release = release
        self._began = time.monotonic()

    def report(self, text: str) -> None:
        print(f"{self.release:9} {time.monotonic() - self._began:5.0f} s  {text}", flush=True)

    def run(self) -> None:
        with bare_system(self.release) as system:
            self.install(system)
            self.upgrade(system)
            self.remove_and_purge(system)
            self.rare_purges(system)
            after = system.entries()
            if self.release in NEXT_RELEASE:
                self.release_upgrade(system, NEXT_RELEASE[self.release])
        depends = field(self.package, "Depends")
        with bare_system(self.release) as system:
            system.run(f"{APT} update && {APT} satisfy --yes --no-install-recommends '{depends}'")
            before = system.entries()
        different = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        assert not different, "\n".join(f"{path}: {before.get(path)} -> {after.get(path)}" for path in different)
        self.report(f"the purge left nothing: {len(after):,} files and folders as without the package")

    def install(self, system: Chroot) -> None:
        shutil.copy(self.package, system.root / "tmp/watchdog.deb")
        system.run(f"{APT} update && {APT} install --yes --no-install-recommends /tmp/watchdog.deb")
        system.run(f"VERSION={field(self.package, 'Version')}\n{INSTALLED}")
        self.report("installed by apt with all that it needs; the command runs")
        self.doctor(system)

    def doctor(self, system: Chroot) -> None:
        doctor = system.run("bpf-watchdog doctor", check=False)
        assert doctor.returncode in {0, 4}, doctor.stdout  # 4: this host's kernel is unfit
        assert "missing code" not in doctor.stdout, doctor.stdout
        self.report(f"doctor: exit code {doctor.returncode}")

    def upgrade(self, system: Chroot) -> None:
        """Install a newer version of the same content, then try to go back below the version of the state file."""
        self.copy_with_version("9999", system.root / "tmp/newer.deb")
        system.run("echo '# by hand' >>/etc/bpf-watchdog/watchdog.toml; chmod 600 /etc/bpf-watchdog/watchdog.toml")
        self.set_state_version(system, 1)
        system.run(f"{APT} install --yes /tmp/newer.deb")
        system.run(
            "grep -q '# by hand' /etc/bpf-watchdog/watchdog.toml; test -s /var/lib/bpf-watchdog/state.sqlite3;"
            "test \"$(stat -c '%U %a' /etc/bpf-watchdog/watchdog.toml)\" = 'root 600'"
        )
        self.report("an upgrade kept settings, their owner and mode, and the state")
        self.set_state_version(system, 9_999)
        refused = system.run("dpkg --install /tmp/watchdog.deb", check=False)
        assert refused.returncode != 0, refused.stdout
        assert "was written by a newer bpf-watchdog (file version 9999;" in refused.stdout, refused.stdout
        assert system.run("dpkg-query -f '${db:Status-Abbrev}${Version}' -W bpf-watchdog").stdout == "ii 9999"
        self.set_state_version(system, 1)
        system.run(f"{APT} install --yes --allow-downgrades /tmp/watchdog.deb")
        self.report("a version that cannot read the state file is refused, another one is not")

    def copy_with_version(self, version: str, place: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder, "tree")
            subprocess.run(["dpkg-deb", "--raw-extract", self.package, tree], check=True)
            control = tree / "DEBIAN/control"
            lines = control.read_text().splitlines(keepends=True)
            control.write_text("".join(f"Version: {version}\n" if x.startswith("Version:") else x for x in lines))
            subprocess.run(["dpkg-deb", "-Znone", "--build", tree, place], check=True, stdout=subprocess.DEVNULL)

    def set_state_version(self, system: Chroot, version: int) -> None:
        system.run(f"install -d -o bpf-watchdog /var/lib/bpf-watchdog; python3 -c '{STATE}' {version}")

    def remove_and_purge(self, system: Chroot) -> None:
        system.run(f"rm /tmp/newer.deb; {APT} remove --yes bpf-watchdog")
        system.run("test ! -e /usr/lib/bpf-watchdog; test ! -e /usr/bin/bpf-watchdog; test -e /etc/bpf-watchdog")
        system.run("test -e /var/lib/bpf-watchdog/state.sqlite3")
        self.report("removed: settings and state are kept")
        system.run(
            "rm -r /etc/bpf-watchdog; dpkg --install /tmp/watchdog.deb; cd /etc/bpf-watchdog;"
            "test \"$(stat -c '%U:%G %a' . rules.d secrets | uniq)\" = 'root:bpf-watchdog 750';"
            "bpf-watchdog check --here"
        )
        self.report("installed again without the former settings: the folders are as new ones are")
        # All that an administrator can have added: a mask of the unit, a drop-in, another member of the group.
        system.run(
            "systemctl mask bpf-watchdog; usermod --append --groups bpf-watchdog games;"
            "mkdir /etc/systemd/system/bpf-watchdog.service.d; touch /etc/bpf-watchdog/secrets/.hidden"
        )
        system.run(f"{APT} purge --yes bpf-watchdog; ! dpkg-query -W bpf-watchdog")
        system.run(NO_ACCOUNT)
        self.report("purged")

    def rare_purges(self, system: Chroot) -> None:
        system.run(f"{KILLER}\nVERSION={field(self.package, 'Version')}\n{INSTALLED}")
        self.report("an interrupted installation is completed")
        system.run(f"dpkg --purge bpf-watchdog; dpkg --install /tmp/watchdog.deb; {SHARED}\nrm /tmp/watchdog.deb")
        self.report("a purge spares what is mounted or linked")

    def release_upgrade(self, system: Chroot, following: str) -> None:
        """Upgrade the whole system to the next release, with the package configured; then purge the package."""
        shutil.copy(self.package, system.root / "tmp/watchdog.deb")
        system.run("dpkg --install /tmp/watchdog.deb; rm /tmp/watchdog.deb")
        self.set_state_version(system, 1)
        system.run(f"RELEASE={self.release} NEXT={following}\n{RELEASE_UPGRADE}")
        # INSTALLED also counts the bytecode: a file for each source, by the new Python, and none of the former one.
        system.run(f"VERSION={field(self.package, 'Version')}\n{INSTALLED}")
        self.report(f"upgraded to {following}: account, settings and state are as before, and the command runs")
        self.doctor(system)
        system.run(f"{APT} purge --yes bpf-watchdog; {NO_ACCOUNT}")
        # Programs that change accounts keep copies of their former files, with a hyphen at the end.
        system.run("! grep -rlF --exclude='*-' bpf-watchdog /etc")
        left = [path for path in system.entries() if "bpf-watchdog" in path]
        assert not left, "\n".join(left)
        self.report(f"the purge on {following} left nothing")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path)
    parser.add_argument("releases", nargs="+")
    arguments = parser.parse_args()
    for release in arguments.releases:
        Checks(arguments.package, release).run()


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError) as failure:
        sys.exit(f"failed: {failure}")
