"""Imports go on after root is given up, from folders that the account cannot reach any more.

A checkout in /root, or an environment anywhere below a folder of mode 0700, is not the account's to read; but Python
imports late: numpy.ma at the first `np.unique`, a codec at the first header. To follow a descriptor's link in
/proc/self/fd takes no right on the folders above what it refers to, and a process may always follow its own (proc(5),
"magic links" in symlink(7)). So such search paths are opened while they can be, and replaced by these links after.

The folders themselves and what is in them must be readable to the account, as a usual umask leaves them.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from watchdog.errors import NotPermitted


def open_search_paths() -> dict[str, int]:
    """Open each folder of the import path; return descriptors by path, for `keep_search_paths_reachable`."""
    opened: dict[str, int] = {}
    for path in [*sys.path, *(path for package in _packages() for path in package.__path__)]:
        if path and path not in opened and Path(path).is_dir():
            opened[path] = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return opened


def keep_search_paths_reachable(search_paths: Mapping[str, int]) -> None:
    """Let imports find what is in the folders of `opened` that are out of reach by now, and close the others.

    Raises:
        NotPermitted: a package that is in use cannot be read, not even so; names the remedy.
    """
    links: dict[str, str] = {}
    for path, fd in search_paths.items():
        if _readable(path) or _readable(_through(links, path)):
            os.close(fd)
        else:
            links[path] = f"/proc/self/fd/{fd}"
    sys.path[:] = [_through(links, path) for path in sys.path]
    for package in _packages():
        paths = [_through(links, path) for path in package.__path__]
        if paths != list(package.__path__):
            package.__path__ = paths
        for path in paths:
            if path in links.values() and not _readable(path):
                _refuse(os.path.realpath(path))


def _packages() -> list[ModuleType]:
    return [module for module in list(sys.modules.values()) if getattr(module, "__path__", None)]


def _through(links: dict[str, str], path: str) -> str:
    # The longest link's path is the last one added.
    for folder in reversed(links):
        if path == folder or path.startswith(f"{folder}/"):
            return links[folder] + path.removeprefix(folder)
    return path


def _readable(path: str) -> bool:
    return os.access(path, os.R_OK | os.X_OK)


def _refuse(folder: str) -> None:
    account = pwd.getpwuid(os.getuid()).pw_name
    raise NotPermitted(f"the account {account} cannot read {folder}", remedy=f"chmod -R go+rX {folder}")
