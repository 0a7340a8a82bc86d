"""Country and autonomous system of peers, from MaxMind DB files of the user: `remote_country` and `remote_asn`.

Format: MaxMind DB File Format Specification 2.0. A lookup takes some microseconds and is kept for as long as the
address has its code. The library maps a file into memory, where it must not change: another database written into it,
as by cp(1), would end the process (SIGBUS, mmap(2)). So a copy in memory is read.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from watchdog.config.location_files import NO_LOCATION_FILES, LocationFiles
from watchdog.config.settings import SettingsDocument
from watchdog.config.trusted_files import data_owners, flaws_on_path
from watchdog.errors import WatchdogError
from watchdog.measure.catalogue import LOCATION_DIMENSIONS, OTHER_CODE
from watchdog.measure.interned_texts import OWN_ACCOUNT
from watchdog.measure.interning import InternedNames, address_text
from watchdog.measure.snapshot import AddressHalves, Codes

if TYPE_CHECKING:
    from maxminddb import Reader

_MAX_TEXTS = 1 << 17  # distinct texts of one file: there are some 100,000 autonomous systems
_MAX_BYTES = 1 << 28  # of one file: those of all cities have half of that


def _country(record: Mapping[str, Any]) -> str:
    place = record.get("country") or record.get("registered_country") or {}
    # GeoLite2 and DB-IP have {"country": {"iso_code": "DE"}}, the free files of IPinfo {"country": "DE"}.
    code = place.get("iso_code", "") if isinstance(place, Mapping) else place
    return code if isinstance(code, str) and len(code) == 2 else ""  # noqa: PLR2004 - ISO 3166-1 alpha-2


def _asn(record: Mapping[str, Any]) -> str:
    number = record.get("autonomous_system_number", record.get("asn", ""))
    text = str(number).upper().removeprefix("AS")
    return f"AS{text}" if text.isascii() and text.isdecimal() and len(text) <= 10 else ""  # noqa: PLR2004 - 32 bits


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {"remote_country": _country, "remote_asn": _asn}


class _LocationFile:
    """The texts of one dimension, by code of the address."""

    def __init__(self, reader: Reader, read: Callable[[Mapping[str, Any]], str]) -> None:
        self._reader = reader
        self._read = read
        self._known: AddressHalves = np.zeros((0, 2), np.uint64)  # by code of the address: the one that was looked up
        self._ids = np.zeros(0, np.uint32)  # by code: index into `_texts`
        self._texts: list[str] = [""]
        self._index = {"": 0}

    def ids(self, codes: Codes, halves: AddressHalves) -> NDArray[np.uint32]:
        """Return an index into the texts for each of `codes`, distinct, of the addresses `halves`."""
        missing = int(codes.max(initial=0)) + 1 - len(self._ids)
        if missing > 0:
            self._known = np.concatenate([self._known, np.zeros((missing, 2), np.uint64)])
            self._ids = np.concatenate([self._ids, np.zeros(missing, np.uint32)])
        new = np.flatnonzero((self._known[codes] != halves).any(axis=1))
        self._ids[codes[new]] = [self._look_up(int(upper), int(lower)) for upper, lower in halves[new].tolist()]
        self._known[codes[new]] = halves[new]
        ids: NDArray[np.uint32] = self._ids[codes]
        return ids

    def text(self, number: int) -> str:
        return self._texts[number]

    def _look_up(self, upper: int, lower: int) -> int:
        try:
            record = self._reader.get(address_text(upper, lower))
        except (ValueError, RuntimeError):  # an IPv6 address in a file of IPv4 addresses; InvalidDatabaseError
            record = None
        text = self._read(record) if isinstance(record, Mapping) else ""
        if text not in self._index and len(self._texts) < _MAX_TEXTS:
            self._index[text] = len(self._texts)
            self._texts.append(text)
        return self._index.get(text, 0)


class Locations:
    """The files that are configured."""

    def __init__(self, files: LocationFiles = NO_LOCATION_FILES) -> None:
        """Open the files.

        Raises:
            WatchdogError: a file cannot be read, or the library is missing.
        """
        self._files = {
            dimension: _LocationFile(_open(path), _READERS[dimension])
            for dimension, key in LOCATION_DIMENSIONS.items()
            if (path := getattr(files, key)) is not None
        }

    def codes(self, dimension: str, remote: Codes, halves: AddressHalves, names: InternedNames, at_ns: int) -> Codes:
        """Return the codes of `dimension` for peers: (n,) codes and (n, 2) halves of their addresses.

        Peers without an address have the code of `remote`. Without a file, all others have the code of "".
        """
        file = self._files.get(dimension)
        found = np.where(remote < OTHER_CODE, np.uint32(0), remote)
        if file is None:
            return found
        there = np.flatnonzero(remote < OTHER_CODE)
        distinct, first, index = np.unique(remote[there], return_index=True, return_inverse=True)
        ids, place = np.unique(file.ids(distinct, halves[there[first]]), return_inverse=True)
        interned = [names.intern(dimension, file.text(number), OWN_ACCOUNT, at_ns) for number in ids.tolist()]
        found[there] = np.array(interned, np.uint32)[place][index] if len(there) else 0
        return found


def report_location_files(settings: SettingsDocument) -> None:
    """Note a problem in `settings` for each file of locations that cannot be used."""
    table = settings.document.root.table("networks")
    for key in LOCATION_DIMENSIONS.values():
        path = getattr(settings.values.locations, key)
        if path is None or table.has_problem(key):
            continue
        if flaws := flaws_on_path(path, data_owners()):
            table.add_problem(key, f"{flaws[0].path!r}: {flaws[0]}")
            continue
        try:
            _open(path).close()
        except WatchdogError as error:
            table.add_problem(key, str(error))


def _open(path: str) -> Reader:
    """Return the reader of the file at `path`.

    Raises:
        WatchdogError: the file cannot be read, or the library is missing.
    """
    try:
        library = importlib.import_module("maxminddb")
    except ImportError:
        remedy = "pip install 'bpf-watchdog[locations]', or the package python3-maxminddb"
        raise WatchdogError(f"the library maxminddb is not installed: {remedy}") from None
    try:
        copy = _copy_to_memory(path)
    except OSError as error:
        raise WatchdogError(f"cannot be used: {error.strerror}") from None
    link = f"/proc/self/fd/{copy}"
    try:
        return cast("Reader", library.open_database(link))
    except (OSError, ValueError, library.InvalidDatabaseError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise WatchdogError(f"cannot be used: {reason.replace(link, path)}") from None
    finally:
        os.close(copy)


def _copy_to_memory(path: str) -> int:
    """Return the descriptor of a copy of the file at `path`.

    Raises:
        WatchdogError: not a regular file, or over 256 MiB.
        OSError: it cannot be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise WatchdogError(f"cannot be used: not a regular file of at most {_MAX_BYTES >> 20} MiB")
        copy = os.memfd_create("locations", os.MFD_CLOEXEC)
        try:
            at = 0
            while at < status.st_size and (count := os.sendfile(copy, file, at, status.st_size - at)):
                at += count
        except OSError:
            os.close(copy)
            raise
    finally:
        os.close(file)
    return copy
