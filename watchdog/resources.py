"""Where the files are that ship with the program: inside the package when installed, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    shipped = _PACKAGE / "_shipped" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / name


def rules_folder() -> Path:
    """Return the folder of the shipped rules."""
    return _folder("rules")


def bpf_folder() -> Path:
    """Return the folder of the BPF sources."""
    return _folder("bpf")
