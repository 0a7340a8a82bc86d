"""Whom TLS trusts and who we say we are: certificates and keys, all read when the configuration is.

The daemon may be unable to read them once it has given up its privileges. What a context needs of keys goes through a
file in memory: OpenSSL's binding takes paths only, and a key may come from the environment.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import ssl
from functools import lru_cache
from pathlib import Path

import certifi

from watchdog.config.bounded_file import UnusableFile, read_regular_file
from watchdog.config.document import Table, secret_forms
from watchdog.config.permissions import other_readers, restrict_command
from watchdog.config.secrets import Secret

TLS_KEYS = ("ca_file", "cert_file", *secret_forms("key"))

_MOST_BYTES = 1_048_576  # a host's whole bundle of authorities is a quarter of that
_FINGERPRINT = re.compile(r"sha-256:((?:[0-9A-F]{2}:){31}[0-9A-F]{2})", re.IGNORECASE)  # RFC 5425 §4.2.2
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def host_tls_context() -> ssl.SSLContext:
    """Trust what the host trusts, so that an organisation's own authorities count; certifi's list where it has none.

    The same context for everyone, never to be changed: each takes 0.1 s and 1 MB. A new one when the host's list is.
    """
    return _shared_host_context(_host_list())


def tls_context_from_table(table: Table, *, unshared: bool = False) -> ssl.SSLContext:
    """Read `ca_file`, `cert_file` and `key_file` (or another form of `key`), none of them required.

    With a `ca_file`, only the authorities in it are trusted, not the host's. `own`: the caller is going to change it.
    """
    authorities, certificate = _pem(table, "ca_file"), _pem(table, "cert_file")
    if authorities is not None:
        context = _trusting(authorities, table)
    else:
        context = _new_host_context() if unshared or certificate is not None else host_tls_context()
    if certificate is not None:
        _identify(context, certificate, table.secret("key", required=False), table)
    elif table.secret("key", required=False) is not None:
        given = next(form for form in TLS_KEYS[2:] if form in table)
        table.add_problem(given, "of use with a cert_file only")
    return context


@lru_cache(maxsize=1)
def _shared_host_context(_host_list: tuple[int, ...]) -> ssl.SSLContext:
    return _new_host_context()


def _host_list() -> tuple[int, ...]:
    # What a change of the host's list changes, too.
    paths = ssl.get_default_verify_paths()
    times = []
    for path in (paths.cafile, paths.capath):
        try:
            times.append(Path(path or "/nonexistent").stat().st_mtime_ns)
        except OSError:
            times.append(0)
    return tuple(times)


def _new_host_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    folder = Path(ssl.get_default_verify_paths().capath or "/nonexistent")  # looked into at each handshake
    if not context.get_ca_certs() and not (folder.is_dir() and any(folder.iterdir())):
        context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def configure_pinning(context: ssl.SSLContext, *, verify_chain: bool) -> ssl.SSLContext:
    """Return `context` for a peer that is known by its certificate's fingerprint.

    The fingerprint alone vouches for it, so that a self-signed certificate of whatever name will do, unless
    `verify_chain`.
    """
    if not verify_chain:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def fingerprints_from_table(table: Table, key: str) -> tuple[bytes, ...]:
    """Return the digests at `key`, an array of texts like "sha-256:AB:CD:…"; what is none is noted as a problem."""
    digests = []
    for index, text in enumerate(table.texts(key, ())):
        match = _FINGERPRINT.fullmatch(text)
        if match is None:
            table.add_problem(key, "write it like sha-256:AB:CD:…, 32 pairs of hex digits", index=index)
        else:
            digests.append(bytes.fromhex(match[1].replace(":", "")))
    return tuple(digests)


def has_fingerprint(certificate: bytes, digests: tuple[bytes, ...]) -> bool:
    """Tell whether the DER form of a certificate has one of `digests`."""
    found = hashlib.sha256(certificate).digest()
    return any(hmac.compare_digest(found, digest) for digest in digests)


def _trusting(authorities: str, table: Table) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError):
        table.add_problem("ca_file", "holds no certificates in PEM form")
    return context


def _identify(context: ssl.SSLContext, certificate: str, key: Secret | None, table: Table) -> None:
    """Have `context` show `certificate`, whose key is `key` or stands with it."""
    together = certificate if key is None else f"{certificate}\n{key.reveal()}\n"
    if not _PRIVATE_KEY.search(together):
        if not any(form in table for form in TLS_KEYS[2:]):
            table.add_problem("cert_file", "holds no private key: give key_file too")
        elif key is not None:
            table.add_problem("key_file" if "key_file" in table else "key", "holds no private key in PEM form")
        return
    memory = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(together.encode())
        # An empty passphrase: without one, OpenSSL would ask the terminal.
        context.load_cert_chain(f"/proc/self/fd/{memory}", password="")
    except (ssl.SSLError, OSError, ValueError):
        table.add_problem("cert_file", "certificate and key do not belong together, or the key has a passphrase")
    finally:
        os.close(memory)


def _pem(table: Table, key: str) -> str | None:
    """Return the text of the file at `key`, None if there is none or a problem with it, which has been told."""
    path = table.text(key, "")
    if not path:
        return None
    if not path.startswith("/"):
        table.add_problem(key, f"must be an absolute path, not {path!r}")
        return None
    try:
        content, status = read_regular_file(path, _MOST_BYTES)
    except UnusableFile:
        content, status = b"", None
    except OSError as error:
        said = f"cannot read {path!r}: {error.strerror}"
        (table.add_problem if table.document.require_secrets else table.add_note)(key, said)
        return None
    text = content.decode("ascii", "replace")
    if status is None or "-----BEGIN " not in text:
        table.add_problem(key, f"{path!r} is no file in PEM form")
    elif _PRIVATE_KEY.search(text) and (others := other_readers(status)):
        table.add_problem(key, f"the private key in {path!r} is open to {others}: {restrict_command(path)}")
    else:
        return text
    return None
