"""Check a tree before its release: version, changelog, licences, and that two builds of a package are the same bytes.

usage: release_check.py CHECKOUT   environment: BIN (folder of the environment's programs), SOURCE_DATE_EPOCH

Exit code 0 where the tree can be released; else 1, with one line for each problem.
"""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

# Settings of the building process that must not change a package.
_FIRST = {"TZ": "UTC", "LC_ALL": "C", "umask": "022"}
_SECOND = {"TZ": "Pacific/Auckland", "LC_ALL": "C.UTF-8", "umask": "077"}


def main() -> None:
    """Print each problem; exit."""
    checkout = Path(sys.argv[1]).resolve()
    version = _version(checkout)
    problems = [*_changelog_problems(checkout, version), *_license_problems(checkout)]
    with tempfile.TemporaryDirectory() as scratch:
        first, second = Path(scratch, "one"), Path(scratch, "a folder of another name length")
        for folder, environment in ((first, _FIRST), (second, _SECOND)):
            _build(checkout, folder, environment)
        problems += _difference_problems(first, second)
        problems += _version_problems(first, version)
    print("\n".join(problems) or f"bpf-watchdog {version} can be released")
    sys.exit(1 if problems else 0)


def _version(checkout: Path) -> str:
    text = (checkout / "watchdog/__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        sys.exit("watchdog/__init__.py has no __version__")
    return found[1]


def _changelog_problems(checkout: Path, version: str) -> Iterator[str]:
    text = (checkout / "CHANGELOG.md").read_text("utf-8")
    chapters = re.findall(r"^## \[([^\]]+)\](?: - (\S+))?$", text, re.MULTILINE)
    dates = dict(chapters)
    if version not in dates:
        yield f"CHANGELOG.md: no chapter ## [{version}] - DATE"
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", dates[version]):
        yield f"CHANGELOG.md: the chapter of {version} has no date"
    elif next(name for name, _ in chapters if name != "Unreleased") != version:
        yield f"CHANGELOG.md: the chapter of {version} is not the first one after Unreleased"
    unreleased = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if unreleased is not None and unreleased[1].strip():
        yield f"CHANGELOG.md: Unreleased is not empty: move its lines to the chapter of {version}"


def _license_problems(checkout: Path) -> Iterator[str]:
    for source in sorted((checkout / "bpf").glob("*.[ch]")):
        if "SPDX-License-Identifier: GPL-2.0-only" not in source.read_text("utf-8").partition("\n")[0]:
            yield f"{source.relative_to(checkout)}: no line SPDX-License-Identifier: GPL-2.0-only"
    copyright_text = (checkout / "packaging/debian/copyright").read_text("utf-8")
    for name in re.findall(r"^([\w-]+)==", (checkout / "packaging/vendored.txt").read_text("utf-8"), re.MULTILINE):
        if f"Files: debian/vendored/{name}/*" not in copyright_text:
            yield f"packaging/debian/copyright: no paragraph for {name}"


def _build(checkout: Path, folder: Path, environment: dict[str, str]) -> None:
    """Build source distribution, wheel and Debian package into `folder`."""
    binaries = os.environ["BIN"]
    script = f"""
        umask {environment["umask"]}
        '{binaries}/python' -m build --no-isolation --outdir "$1" .
        packaging/build-deb "$1"/*.tar.gz "$1"
    """
    variables = os.environ | {name: value for name, value in environment.items() if name.isupper()}
    command = ["/bin/sh", "-euc", script, "build", str(folder)]
    done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the build failed:\n{done.stdout}{done.stderr}")


def _difference_problems(first: Path, second: Path) -> Iterator[str]:
    hashes = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        for folder in (first, second)
    ]
    for name in sorted(hashes[0].keys() | hashes[1].keys()):
        if hashes[0].get(name) != hashes[1].get(name):
            yield f"{name}: two builds have different bytes"


def _version_problems(folder: Path, version: str) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                metadata = wheel.read(f"bpf_watchdog-{version}.dist-info/METADATA").decode()
            found = re.search(r"^Version: (.+)$", metadata, re.MULTILINE)
        elif path.suffix == ".gz":
            with tarfile.open(path) as source:
                member = source.extractfile(f"bpf_watchdog-{version}/PKG-INFO")
                found = re.search(r"^Version: (.+)$", member.read().decode() if member else "", re.MULTILINE)
        elif path.suffix == ".deb":
            field = subprocess.run(
                ["dpkg-deb", "--field", str(path), "Version"], capture_output=True, text=True, check=True
            )
            found = re.match("(.+)", field.stdout.replace("~", ""))
        else:
            continue
        if found is None or found[1].strip() != version:
            yield f"{path.name}: its version is not {version}"


if __name__ == "__main__":
    main()
