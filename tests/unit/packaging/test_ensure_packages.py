"""packaging/ensure-packages with the real dpkg-query on a database of its own."""

import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "packaging/ensure-packages"
NOBODY = 65534

DATABASE = """\
Package: whole
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 1
Maintainer: a
Description: a
Suggests: named

Package: whole
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 1
Maintainer: a
Description: a

Package: broken
Status: install reinstreq half-installed
Architecture: all
Version: 1
Maintainer: a
Description: a

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1
Maintainer: a
Description: a
"""


@pytest.fixture
def missing():
    """Return a function that gives the packages, of those named, that the script wants to install."""
    with tempfile.TemporaryDirectory() as name:  # other accounts cannot enter pytest's own
        folder = Path(name)
        (folder / "database").mkdir()
        (folder / "database/status").write_text(DATABASE)
        (folder / "bin").mkdir()
        for program in ("dpkg-query", "grep", "id"):  # no sudo: the script names the packages and stops
            (folder / "bin" / program).symlink_to(shutil.which(program))
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755)
        yield partial(missing_packages, folder)


def missing_packages(folder, *packages):
    done = subprocess.run(
        ["/bin/sh", "-s", *packages],
        input=SCRIPT.read_text(),
        user=NOBODY if os.geteuid() == 0 else None,
        env={"PATH": str(folder / "bin"), "DPKG_ADMINDIR": str(folder / "database")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        assert done.stderr == ""
        return []
    assert "only root can install them:" in done.stderr, done.stderr
    return done.stderr.splitlines()[-1].removeprefix("Run as root: apt-get install ").split()


def test_only_an_installed_package_is_there(missing):
    assert missing("whole", "named", "broken", "removed", "unknown") == ["named", "broken", "removed", "unknown"]


def test_nothing_is_asked_for_where_all_are_installed(missing):
    assert missing("whole") == []
