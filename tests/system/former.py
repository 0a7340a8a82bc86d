"""A package of the code before the last step of the state file's schema, which an upgrade has to convert."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

VERSION = "0~former"
SCHEMA = "watchdog/storage/schema.py"
MODULES = "usr/lib/bpf-watchdog/lib/python3/site-packages"
COUNT_STEPS = "from watchdog.storage.schema import SCHEMA_STEPS; print(len(SCHEMA_STEPS))"


class NoFormerVersion(Exception):
    """The checkout has no code of an older schema; with the reason."""


def former_package(checkout: Path, package: Path, target: Path) -> int:
    """Make `target`: the package with an older program, BPF sources and shipped rules, and a lower version.

    Returns the version of its schema.

    Raises:
        NoFormerVersion: the checkout has no history, or none with an older schema.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        source, root = Path(name) / "source", Path(name) / "root"
        subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(root)], check=True)
        known = root / "usr/lib/bpf-watchdog/state-version"
        version = _unpack_former_source(checkout, source, int(known.read_text(encoding="ascii")))
        known.write_text(f"{version}\n", encoding="ascii")
        _replace_program(root / MODULES, source)
        _replace_line(root / "DEBIAN/control", r"Version: .*", f"Version: {VERSION}")
        _replace_line(root / "DEBIAN/preinst", r"known=\d+", f"known={version}")
        (root / "DEBIAN/md5sums").unlink()
        subprocess.run(["dpkg-deb", "-Znone", "--build", str(root), str(target)], check=True, stdout=subprocess.DEVNULL)
    return version


def _unpack_former_source(checkout: Path, folder: Path, present: int) -> int:
    """Unpack the newest commit with a schema older than version `present`; return the version of its schema."""
    if not (checkout / ".git").exists():
        text = f"{checkout} is no clone of the repository: the former version of the upgrade comes from its history"
        raise NoFormerVersion(text)
    commits = _git(checkout, "log", "--format=%H", "--", SCHEMA).decode().split()
    for commit in commits[:-1]:
        _unpack(checkout, f"{commit}~1", folder)
        if (version := _schema_version(folder)) < present:
            return version
    text = (
        f"the history of {checkout} has no schema before version {present}: a shallow clone needs git fetch --unshallow"
    )
    raise NoFormerVersion(text)


def _unpack(checkout: Path, commit: str, folder: Path) -> None:
    """Unpack the files of an installed program, in place of those of another commit."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    archive = _git(checkout, "-c", "tar.umask=0022", "archive", commit, "watchdog", "bpf", "rules")
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=archive, check=True)


def _schema_version(folder: Path) -> int:
    command = ["/usr/bin/python3", "-B", "-c", COUNT_STEPS]
    return int(subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout)


def _git(checkout: Path, *arguments: str) -> bytes:
    """Return the output of git; root may read a repository of another user."""
    command = ["git", "-c", f"safe.directory={checkout}", "-C", str(checkout), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def _replace_program(modules: Path, source: Path) -> None:
    """Put other code in the place of the installed one; modules of others beside it stay."""
    shutil.rmtree(modules / "watchdog")
    shutil.copytree(source / "watchdog", modules / "watchdog")
    for name in ("bpf", "rules"):
        shutil.copytree(source / name, modules / "watchdog" / "_shipped" / name)


def _replace_line(path: Path, pattern: str, line: str) -> None:
    text, count = re.subn(rf"(?m)^{pattern}$", line, path.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{path}: {count} lines like {pattern}")
    path.write_text(text, encoding="utf-8")
