"""The host that each path given to `check` belongs to: a repository can hold the files of many hosts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from watchdog.config.settings import DEFAULT_RULES_FOLDER, DEFAULT_SETTINGS_FILE

RULES_FOLDER_NAME: Final = Path(DEFAULT_RULES_FOLDER).name
SETTINGS_FILE_NAME: Final = Path(DEFAULT_SETTINGS_FILE).name


def host_folder(path: Path) -> Path | None:
    """Return the folder that is a host's /etc/bpf-watchdog, None if `path` is not known to belong to one.

    `path`: `rules.d`, a file in it, or a `watchdog.toml` that has a `rules.d` beside it.
    """
    place = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they are
    if place.name == RULES_FOLDER_NAME:
        return place.parent
    if place.parent.name == RULES_FOLDER_NAME:
        return place.parent.parent
    is_beside = place.name == SETTINGS_FILE_NAME and os.path.isdir(place.parent / RULES_FOLDER_NAME)  # noqa: PTH112 - Path's raises without permission
    return place.parent if is_beside else None


def paths_by_host(paths: Sequence[Path]) -> list[Sequence[Path]]:
    """Return the paths of each host, in the order of their first ones; those of no known host as one more list.

    With one host, all paths are its own: a file that is elsewhere can be a draft of one of its files.
    """
    groups: dict[Path | None, list[Path]] = {}
    for path in paths:
        groups.setdefault(host_folder(path), []).append(path)
    return list(groups.values()) if len(groups.keys() - {None}) > 1 else [paths]
