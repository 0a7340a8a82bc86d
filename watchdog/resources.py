"""Where the files are that ship with the program: inside the package when installed, beside it in a checkout."""

from __future__ import annotations

import os
from pathlib import Path

import watchdog


def _folder(name: str) -> Path:
    # Where imports look, not where they looked when this was imported: see kernel/import_paths.py.
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
