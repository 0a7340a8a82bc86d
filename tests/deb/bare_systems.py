"""Install, use, upgrade, remove and purge the Debian package in bare systems; `make test-deb` runs it.

usage: bare_systems.py [--unit-tests] DEB RELEASE …

Nothing runs as process 1 in there, so the service is enabled and not started. `--unit-tests`: instead run tests/unit
with the release's own Python and modules.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from chroot import Chroot, bare_system

CHECKOUT = Path(__file__).parents[2]
APT = "apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0"
CHECKERS = ("clang-format", "import-linter", "mypy", "pytest-cov", "ruff", "types-")  # of the extra dev, no tests' need
TEST_PACKAGES = "python3-venv ca-certificates git iproute2 openssl gcc libc6-dev prometheus"

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
            after = system.entries()
        depends = subprocess.run(
            ["dpkg-deb", "--field", self.package, "Depends"], capture_output=True, text=True, check=True
        ).stdout.strip()
        with bare_system(self.release) as system:
            system.run(f"{APT} update && {APT} satisfy --yes --no-install-recommends '{depends}'")
            before = system.entries()
        different = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        assert not different, "\n".join(f"{path}: {before.get(path)} -> {after.get(path)}" for path in different)
        self.report(f"the purge left nothing: {len(after):,} files and folders as without the package")

    def install(self, system: Chroot) -> None:
        shutil.copy(self.package, system.root / "tmp/watchdog.deb")
        system.run(f"{APT} update && {APT} install --yes --no-install-recommends /tmp/watchdog.deb")
        version = subprocess.run(
            ["dpkg-deb", "--field", self.package, "Version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        system.run(f"VERSION={version}\n{INSTALLED}")
        self.report("installed by apt with all that it needs; the command runs")
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
        system.run(f"rm /tmp/newer.deb /tmp/watchdog.deb; {APT} remove --yes bpf-watchdog")
        system.run("test ! -e /usr/lib/bpf-watchdog; test ! -e /usr/bin/bpf-watchdog; test -e /etc/bpf-watchdog")
        system.run("test -e /var/lib/bpf-watchdog/state.sqlite3; ! ps -e -o comm= 2>/dev/null | grep bpf-watchdog")
        self.report("removed: settings and state are kept")
        system.run(f"{APT} purge --yes bpf-watchdog; ! dpkg-query -W bpf-watchdog")
        system.run("! id bpf-watchdog")

    def unit_tests(self) -> None:
        extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        tools = shlex.join(name for name in extras["dev"] if not name.startswith(CHECKERS))
        with bare_system(self.release) as system:
            depends = subprocess.run(
                ["dpkg-deb", "--field", self.package, "Depends"], capture_output=True, text=True, check=True
            ).stdout.strip()
            system.run(
                f"{APT} update && {APT} satisfy --yes --no-install-recommends '{depends}' && "
                f"{APT} install --yes --no-install-recommends {TEST_PACKAGES}"
            )
            for settings in (Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt")):
                if settings.exists():
                    shutil.copy(settings, system.root / str(settings)[1:])
            system.run(
                "python3 -m venv --system-site-packages /venv && "
                f"/venv/bin/pip --quiet install 'tomli>=2.5' {tools} && useradd --system bpf-watchdog"
            )
            self.report("tests begin with " + system.run("python3 --version").stdout.strip())
            done = system.run(
                "cp -R /checkout /tmp/checkout && cd /tmp/checkout && rm -rf .venv && "
                "/venv/bin/pip --quiet install --no-deps --editable . && "
                "/venv/bin/python -m pytest -q -p no:cacheprovider -r f --tb short tests/unit",
                check=False,
                own_pids=False,  # as the kernel sees them
                binds=f"{CHECKOUT}:/checkout",
            )
            print(done.stdout[-6_000:])
            assert done.returncode == 0, "unit tests failed"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--unit-tests", action="store_true")
    parser.add_argument("package", type=Path)
    parser.add_argument("releases", nargs="+")
    arguments = parser.parse_args()
    for release in arguments.releases:
        checks = Checks(arguments.package, release)
        if arguments.unit_tests:
            checks.unit_tests()
        else:
            checks.run()


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError) as failure:
        sys.exit(f"failed: {failure}")
