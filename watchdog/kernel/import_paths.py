"""Keeps imports working after root is given up, from folders that the service account cannot reach.

The account cannot reach a checkout in /root, or an environment below a folder of mode 0700. But Python imports late:
numpy.ma at the first `np.unique`, a codec at the first header. A link in /proc/self/fd needs no right on the parent
folders of its target, and a process can always follow its own links (proc(5), "magic links" in symlink(7)). So the
search paths are opened while they are reachable, and later replaced by these links.

The folders themselves and their content must be readable to the account, as a usual umask leaves them.
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
    """Replace each search path that is no longer reachable by a link to its descriptor; close the other descriptors.

    `search_paths`: descriptors by path.

    Raises:
        NotPermitted: an imported package is not readable even by its link; with the remedy.
    """
    links: dict[str, str] = {}
    for path, fd in search_paths.items():
        if _is_readable(path) or _is_readable(_replace_prefix(links, path)):
            os.close(fd)
        else:
            links[path] = f"/proc/self/fd/{fd}"
    sys.path[:] = [_replace_prefix(links, path) for path in sys.path]
    for package in _packages():
        paths = [_replace_prefix(links, path) for path in package.__path__]
        if paths != list(package.__path__):
            package.__path__ = paths
        for path in paths:
            if path in links.values() and not _is_readable(path):
                _refuse(os.path.realpath(path))


def _packages() -> list[ModuleType]:
    return [module for module in list(sys.modules.values()) if getattr(module, "__path__", None)]


def _replace_prefix(links: dict[str, str], path: str) -> str:
    # The link with the longest path was added last.
    for folder in reversed(links):
        if path == folder or path.startswith(f"{folder}/"):
            return links[folder] + path.removeprefix(folder)
    return path


def _is_readable(path: str) -> bool:
    return os.access(path, os.R_OK | os.X_OK)


def _refuse(folder: str) -> None:
    account = pwd.getpwuid(os.getuid()).pw_name
    raise NotPermitted(f"the account {account} cannot read {folder}", remedy=f"chmod -R go+rX {folder}")
