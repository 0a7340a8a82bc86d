"""The Python modules of other projects that the program needs. Imports none of them."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

from watchdog.errors import KernelUnfit
from watchdog.kernel.finding import Finding

MODULES: Final = ("apscheduler", "numpy", "prometheus_client", "requests", "tomli", "urllib3")
"""Without bcc, which has a check of its own."""


def examine_modules() -> Finding:
    """Return the finding on `MODULES`."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if not missing:
        return Finding("ok", "modules", f"{', '.join(MODULES)} are installed for {sys.executable}")
    detail = f"Python modules missing for {sys.executable}: {', '.join(missing)}"
    return Finding("missing", "modules", detail, _remedy(missing))


def missing_module(error: ImportError) -> KernelUnfit | None:
    """Return the error about a missing module of another project, None if `error` has another cause."""
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name in {"", "watchdog"}:
        return None
    return KernelUnfit(f"Python module missing for {sys.executable}: {name}", remedy=_remedy([name]))


def _remedy(names: list[str]) -> str:
    if set(names) & sys.stdlib_module_names:
        return "install all of the distribution's Python, such as Debian's package python3"
    packages = " ".join(f"python3-{name.replace('_', '-')}" for name in names)
    return f"install {packages} with the package manager, or run `bpf-watchdog` of the environment that has them"
