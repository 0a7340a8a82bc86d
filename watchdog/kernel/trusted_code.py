"""Check that nobody but root can change the program: interpreter, import path, packages, libraries, BPF sources.

Root runs this code, and so does a process with CAP_BPF. A line that another user appends to a module would run with
their rights. The check cannot undo that; it refuses an installation that would allow it, from the first start on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from watchdog.config.trusted_files import Flaw, code_owners, find_flaw, flaw_of_open_folder, flaws_on_path
from watchdog.errors import UntrustedCode
from watchdog.resources import bpf_folder, shipped_rules_folder

_OWN_PACKAGES = ("watchdog", "bcc")  # all of their files; of others those that are loaded, or all for `doctor`
_MAX_SHOWN = 20
_LEAVE_IMPORT_PATH = "start it from another folder, and unset PYTHONPATH"


def require_trusted_code() -> None:
    """Check what this process has loaded, and what it can still import, as far as that takes milliseconds.

    Raises:
        UntrustedCode: others can change it; one line for each file or folder, with the remedy.
    """
    flaws = find_code_flaws(code_owners(), thorough=False)
    if not flaws:
        return
    lines = [f"others can change the program: {flaw.path}: {flaw}" for flaw in flaws[:_MAX_SHOWN]]
    if len(flaws) > _MAX_SHOWN:
        lines.append(f"and {len(flaws) - _MAX_SHOWN} more: bpf-watchdog doctor")
    raise UntrustedCode("\n".join(lines))


def find_code_flaws(owners: Collection[int], *, thorough: bool) -> list[Flaw]:
    """Return the flaws of all code, by path; of a folder with a flaw the content is left out.

    `owners`: uids that may own code. `thorough`: look at each file of each package of the import path, which can take a
    second, instead of the files that are loaded.
    """
    found: dict[str, Flaw] = {}
    for flaw in _all_flaws(owners, thorough=thorough):
        if flaw.is_recursive or flaw.path not in found:
            found[flaw.path] = flaw
    repaired = {Path(path) for path, flaw in found.items() if flaw.is_recursive}
    return sorted(flaw for flaw in found.values() if repaired.isdisjoint(Path(flaw.path).parents))


def _all_flaws(owners: Collection[int], *, thorough: bool) -> Iterator[Flaw]:
    yield from _flaws_of_single_files(owners)
    for folder in dict.fromkeys(os.path.abspath(entry) for entry in sys.path):  # noqa: PTH100
        yield from _flaws_of_import_folder(folder, owners, thorough=thorough)
    for folder in _own_folders():
        yield from _flaws_of_tree(folder, owners, _is_any_entry, _is_any_entry)


def _flaws_of_single_files(owners: Collection[int]) -> Iterator[Flaw]:
    folders = set()
    for path in dict.fromkeys(_single_files()):
        folder = os.path.dirname(path)  # noqa: PTH120 - a thousand of them
        if folder not in folders:
            folders.add(folder)
            yield from flaws_on_path(folder, owners)
        with contextlib.suppress(OSError):  # replaced by an upgrade
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                yield from flaws_on_path(path, owners)
            elif flaw := find_flaw(path, status, owners):
                yield flaw


def _single_files() -> Iterator[str]:
    """Yield the interpreter, the files of loaded modules, and each file that is mapped as code: libraries."""
    yield sys.executable
    yield os.path.join(sys.prefix, "pyvenv.cfg")  # noqa: PTH118
    for module in list(sys.modules.values()):
        for name in ("__file__", "__cached__"):
            path = getattr(module, name, None)
            if isinstance(path, str) and path.startswith("/"):
                yield path
    with contextlib.suppress(OSError), Path("/proc/self/maps").open("rb") as maps:
        for line in maps:  # names can have every other kind of line end
            fields = line.split(maxsplit=5)  # proc_pid_maps(5)
            if len(fields) == 6 and b"x" in fields[1] and fields[5].startswith(b"/"):  # noqa: PLR2004
                yield os.fsdecode(fields[5].removesuffix(b"\n"))


def _flaws_of_import_folder(folder: str, owners: Collection[int], *, thorough: bool) -> Iterator[Flaw]:
    if flaw := flaw_of_open_folder(folder):
        yield from flaws_on_path(folder, owners)
        yield Flaw(folder, f"modules are imported from it, and {flaw.reason}", _LEAVE_IMPORT_PATH)
    elif os.path.isdir(folder):  # noqa: PTH112
        yield from _flaws_of_tree(folder, owners, _is_importable, _is_package if thorough else _is_no_entry)


def _own_folders() -> Iterator[str]:
    for name in _OWN_PACKAGES:
        spec = importlib.util.find_spec(name)
        yield from (spec.submodule_search_locations or ()) if spec is not None else ()
    yield from map(str, (bpf_folder(), shipped_rules_folder()))


def _flaws_of_tree(
    folder: str, owners: Collection[int], is_code: Callable[[str], bool], is_entered: Callable[[str], bool]
) -> Iterator[Flaw]:
    """Yield the flaws of the way to `folder`, of the folder, and, if it has none itself, of its content.

    `is_code`: which entries count, by path. `is_entered`: the content of which folders among them counts.
    """
    place = os.path.realpath(folder)
    yield from flaws_on_path(folder, owners)
    with contextlib.suppress(OSError):
        if flaw := find_flaw(place, os.stat(place), owners, recursive=True):  # noqa: PTH116
            yield flaw
        else:
            yield from _flaws_below(place, owners, is_code, is_entered)


def _flaws_below(
    folder: str, owners: Collection[int], is_code: Callable[[str], bool], is_entered: Callable[[str], bool]
) -> Iterator[Flaw]:
    for entry in os.scandir(folder):
        if not is_code(entry.path):
            continue
        with contextlib.suppress(OSError):  # removed meanwhile, or out of reach: nothing is imported from it
            status = entry.stat(follow_symlinks=False)
            if flaw := find_flaw(entry.path, status, owners, recursive=True):
                yield flaw
            elif stat.S_ISLNK(status.st_mode):
                yield from flaws_on_path(entry.path, owners)
            elif stat.S_ISDIR(status.st_mode) and is_entered(entry.path):
                yield from _flaws_below(entry.path, owners, _is_any_entry, is_entered)


def _is_any_entry(_path: str) -> bool:
    return True


def _is_no_entry(_path: str) -> bool:
    return False


def _is_importable(path: str) -> bool:
    name = os.path.basename(path)  # noqa: PTH119
    return name.endswith((".py", ".pyc", ".so", ".pth", ".zip", ".libs")) or name.isidentifier()


def _is_package(path: str) -> bool:
    """Return whether Python imports from the folder; the import path can contain any folder, such as /."""
    name = os.path.basename(path)  # noqa: PTH119
    if name in {"__pycache__", "lib-dynload"} or name.endswith(".libs"):
        return True
    return os.path.exists(os.path.join(path, "__init__.py"))  # noqa: PTH110, PTH118
