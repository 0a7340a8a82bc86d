"""Folders of the shipped files: inside the package when it is installed, next to it in a checkout."""

from __future__ import annotations

import os
from pathlib import Path

import watchdog


def plain_path(path: str) -> str:
    """Return a path for people: without a link of kernel/import_paths.py, which is one of this process alone."""
    return os.path.realpath(path) if path.startswith("/proc/self/fd/") else path


def _folder(name: str) -> Path:
    # The current import path of the package, which kernel/import_paths.py can change after the import.
    package = Path(watchdog.__path__[0])
    shipped = package / "_shipped" / name
    folder = shipped if shipped.is_dir() else package / ".." / name
    plain = folder.resolve()
    return plain if os.access(plain, os.R_OK | os.X_OK) else folder


def shipped_rules_folder() -> Path:
    """Return the folder of the shipped rules."""
    return _folder("rules")


def bpf_folder() -> Path:
    """Return the folder of the BPF sources."""
    return _folder("bpf")
