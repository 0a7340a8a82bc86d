"""Check a tree before its release: commit, version, changelog, licences, and that two builds are the same bytes.

usage: release_check.py CHECKOUT   environment: BIN (folder of the environment's programs), SOURCE_DATE_EPOCH

Exit code 0 where the tree can be released; else 1, with one line for each problem.
"""

import datetime as dt
import hashlib
import json
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
_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")  # as it stands in every package and tag
_PACKAGES = (".cdx.json", ".deb", ".tar.gz", ".whl")
_LICENSE_FILES = ("LICENSE", "bpf/LICENSE")


def main() -> None:
    """Print each problem; exit."""
    checkout = Path(sys.argv[1]).resolve()
    version = _version(checkout)
    problems = [
        *_commit_problems(checkout, version),
        *_changelog_problems(checkout, version),
        *_license_problems(checkout),
    ]
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


def _commit_problems(checkout: Path, version: str) -> Iterator[str]:
    """Yield a problem for each file that is not committed, and one if the version was released from another commit."""
    if not _VERSION.fullmatch(version):
        yield f"watchdog/__init__.py: {version} is no version such as 1.2.3 or 1.2.3rc1"
    status = _git(checkout, "status", "--porcelain")
    if status is None:
        yield "no git checkout: nobody can know later what was released"
        return
    for line in status.splitlines():
        yield f"{line[3:]}: not committed"
    tagged = _git(checkout, "rev-parse", "--verify", "--quiet", f"refs/tags/v{version}^{{commit}}")
    if tagged is not None and tagged != _git(checkout, "rev-parse", "HEAD"):
        yield f"watchdog/__init__.py: the tag v{version} is on another commit: this version was released before"


def _git(checkout: Path, *arguments: str) -> str | None:
    """Return the output of a command of git, None where it fails."""
    command = ["git", "-c", f"safe.directory={checkout}", "-C", str(checkout), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _changelog_problems(checkout: Path, version: str) -> Iterator[str]:
    text = (checkout / "CHANGELOG.md").read_text("utf-8")
    chapters = re.findall(r"^## \[([^\]]+)\](?: - (\S+))?$\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    found = [(date, body) for name, date, body in chapters if name == version]
    if len(found) != 1:
        yield f"CHANGELOG.md: {'several chapters' if found else 'no chapter'} ## [{version}] - DATE"
        return
    [(date, body)] = found
    if not _is_past_date(date):
        yield f"CHANGELOG.md: the chapter of {version} has no date of the form YYYY-MM-DD, at the latest today's"
    if not body.strip():
        yield f"CHANGELOG.md: the chapter of {version} is empty"
    if next(name for name, _, _ in chapters if name != "Unreleased") != version:
        yield f"CHANGELOG.md: the chapter of {version} is not the first one after Unreleased"
    unreleased = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if unreleased is not None and unreleased[1].strip():
        yield f"CHANGELOG.md: Unreleased is not empty: move its lines to the chapter of {version}"


def _is_past_date(text: str) -> bool:
    try:
        date = dt.date.fromisoformat(text)
    except ValueError:
        return False
    # Where the date line is crossed first, it is tomorrow already.
    return len(text) == len("YYYY-MM-DD") and date <= dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)


def _license_problems(checkout: Path) -> Iterator[str]:
    for source in sorted((checkout / "bpf").rglob("*.[ch]")):
        if "SPDX-License-Identifier: GPL-2.0-only" not in source.read_text("utf-8").partition("\n")[0]:
            yield f"{source.relative_to(checkout)}: no line SPDX-License-Identifier: GPL-2.0-only"
    for name in _LICENSE_FILES:
        if not (checkout / name).is_file():
            yield f"{name}: missing"
    copyright_text = (checkout / "packaging/debian/copyright").read_text("utf-8")
    lines = (checkout / "packaging/vendored.txt").read_text("utf-8").splitlines()
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        module = re.match(r"([\w.-]+)==", line)
        if module is None:
            yield f"packaging/vendored.txt: cannot read {line!r}"
        elif f"Files: debian/vendored/{module[1]}/*" not in copyright_text:
            yield f"packaging/debian/copyright: no paragraph for {module[1]}"


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
    for suffix in _PACKAGES:
        paths = sorted(folder.glob(f"*{suffix}"))
        if len(paths) != 1:
            yield f"{len(paths)} packages *{suffix} were built, not 1"
        for path in paths:
            found, licenses = _package_facts(path)
            if found != version:
                yield f"{path.name}: its version is {found or 'not there'}, not {version}"
            if licenses is not None:
                yield from (f"{path.name}: no {name}" for name in _LICENSE_FILES if name not in licenses)


def _package_facts(path: Path) -> tuple[str, set[str] | None]:
    """Return version ("" where it has none) and licence files of a package, None where it has them in another form."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = [re.sub(r".*\.dist-info/(licenses/)?", "", name) for name in wheel.namelist()]
            metadata = next((name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")), None)
            return _metadata_version(wheel.read(metadata).decode() if metadata else ""), set(names)
    if path.suffix == ".gz":
        with tarfile.open(path) as source:
            names = [name.partition("/")[2] for name in source.getnames()]
            member = source.extractfile(source.getnames()[0].partition("/")[0] + "/PKG-INFO")
            return _metadata_version(member.read().decode() if member else ""), set(names)
    if path.suffix == ".deb":
        command = ["dpkg-deb", "--field", str(path), "Version"]
        field = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return field.strip().replace("~", ""), None
    return str(json.loads(path.read_text("utf-8"))["metadata"]["component"]["version"]), None


def _metadata_version(text: str) -> str:
    found = re.search(r"^Version: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


if __name__ == "__main__":
    main()
