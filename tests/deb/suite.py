"""Run tests in bare Debian systems, with each release's own Python and modules; `make test-deb-suite` runs it.

usage: suite.py DEB RELEASE … [--parallel 'PATH …'] [--serial 'PATH …']

The system has the dependencies of DEB, and `make setup-dev` brings the rest, as in a clean clone.
The BPF programs run in this host's kernel.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from chroot import APT, Chroot, bare_system, field

CHECKOUT = Path(__file__).parents[2]
# Where pip finds its index and its certificates.
HOST_SETTINGS = (Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt"))
# pip replaces a module of the release where a tool asks for a newer one; then the tests would prove nothing.
OWN_MODULES = """
import sys
import apscheduler, bcc, certifi, numpy, prometheus_client, requests, urllib3
modules = apscheduler, bcc, certifi, numpy, prometheus_client, requests, urllib3
strange = [x.__file__ for x in modules if not x.__file__.startswith("/usr/lib/python3/dist-packages/")]
assert not strange, strange
print("Python", sys.version.split()[0], *(f"{x.__name__} {getattr(x, '__version__', '')}" for x in modules))
"""
PARALLEL = "--numprocesses=4 --dist=loadfile --no-loadscope-reorder"  # as in `make test`


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path)
    parser.add_argument("releases", nargs="+")
    parser.add_argument("--parallel", default="", help="tests for several processes, with a space between two paths")
    parser.add_argument("--serial", default="", help="tests for one process")
    arguments = parser.parse_args()
    runs = []
    if arguments.parallel:
        runs.append(f"{PARALLEL} {arguments.parallel}")
    if arguments.serial:
        runs.append(arguments.serial)
    failed = [line for release in arguments.releases for line in failed_runs(arguments.package, release, runs)]
    sys.exit("\n".join(f"failed: {line}" for line in failed) or 0)


def failed_runs(package: Path, release: str, runs: list[str]) -> list[str]:
    """Run pytest with the arguments of each run; return those of which tests failed."""
    print(f"== {release}", flush=True)
    with bare_system(release) as system:
        prepare(system, package)
        return [
            f"{release}: pytest {run}"
            for run in runs
            if system.run(
                f"cd /tmp/checkout && .venv/bin/pytest {run}", check=False, own_pids=False, show=True
            ).returncode
        ]


def prepare(system: Chroot, package: Path) -> None:
    """Copy the files of this checkout and set it up on the dependencies of the package."""
    listing = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        place = system.root / "tmp/checkout" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, place, follow_symlinks=False)
    system.run(
        f"{APT} update && {APT} satisfy --yes --no-install-recommends {shlex.quote(field(package, 'Depends'))} && "
        f"{APT} install --yes --no-install-recommends ca-certificates git make"
    )
    (system.root / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="ascii")  # Debian's installer does that
    for settings in filter(Path.exists, HOST_SETTINGS):
        shutil.copy(settings, system.root / str(settings)[1:])
    system.run("make --no-print-directory -C /tmp/checkout setup-dev")
    print(system.run(f"/tmp/checkout/.venv/bin/python -I -c {shlex.quote(OWN_MODULES)}").stdout, flush=True)


if __name__ == "__main__":
    main()
