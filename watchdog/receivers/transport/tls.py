"""TLS contexts: trusted authorities, client certificates and keys, all read together with the configuration.

The daemon may be unable to read them after it gives up its privileges. A key reaches OpenSSL through a file in memory:
Python's binding takes only paths, and a key may come from the environment.
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
from watchdog.config.trusted_files import data_owners, flaws_on_path
from watchdog.errors import DeliveryError, DeliveryErrorReason

TLS_KEYS = ("ca_file", "cert_file", *secret_forms("key"))

_MAX_PEM_BYTES = 1_048_576  # a host's bundle of authorities has about a quarter of that
_FINGERPRINT = re.compile(r"sha-256:((?:[0-9A-F]{2}:){31}[0-9A-F]{2})", re.IGNORECASE)  # RFC 5425 §4.2.2
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def host_tls_context() -> ssl.SSLContext:
    """Return a context that trusts the host's authorities, an organisation's own included; certifi's if it has none.

    All callers share it and must not change it: a context costs 0.1 s and 1 MB. Once the host's list has changed, a new
    one is returned.
    """
    return _shared_host_context(_host_list_mtimes())


def tls_context_from_table(table: Table, *, unshared: bool = False) -> ssl.SSLContext:
    """Read `ca_file`, `cert_file` and the secret `key`; none is required.

    With a `ca_file`, only the authorities in it are trusted, not the host's. `unshared`: return a context that the
    caller may change.
    """
    authorities, certificate = _pem(table, "ca_file"), _pem(table, "cert_file")
    if authorities is not None:
        context = _context_for_authorities(authorities, table)
    else:
        context = _new_host_context() if unshared or certificate is not None else host_tls_context()
    if certificate is not None:
        _load_client_certificate(context, certificate, table.secret("key", required=False), table)
    elif table.secret("key", required=False) is not None:
        table.add_problem(table.given_form("key") or "key", "only used together with cert_file")
    return context


@lru_cache(maxsize=1)
def _shared_host_context(_mtimes: tuple[int, ...]) -> ssl.SSLContext:
    return _new_host_context()


def _host_list_mtimes() -> tuple[int, ...]:
    """Return the modification times in ns of the host's file and folder of authorities; 0 for a missing one."""
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
    folder = Path(ssl.get_default_verify_paths().capath or "/nonexistent")  # OpenSSL reads it at each handshake
    if not context.get_ca_certs() and not (folder.is_dir() and any(folder.iterdir())):
        context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def configure_pinning(context: ssl.SSLContext, *, verify_chain: bool) -> ssl.SSLContext:
    """Prepare `context` for a peer that is identified by the fingerprint of its certificate, and return it.

    Without `verify_chain` the fingerprint alone is checked, so a self-signed certificate with any name is accepted.
    """
    if not verify_chain:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def fingerprints_from_table(table: Table, key: str) -> tuple[bytes, ...]:
    """Return the digests at `key`, an array of texts like "sha-256:AB:CD:…"; any other text is a problem."""
    digests = []
    for index, text in enumerate(table.texts(key, ())):
        match = _FINGERPRINT.fullmatch(text)
        if match is None:
            table.add_problem(key, "write it like sha-256:AB:CD:…, 32 pairs of hex digits", index=index)
        else:
            digests.append(bytes.fromhex(match[1].replace(":", "")))
    return tuple(digests)


def has_fingerprint(certificate: bytes, digests: tuple[bytes, ...]) -> bool:
    """Return whether the SHA-256 digest of `certificate`, in DER form, is one of `digests`."""
    found = hashlib.sha256(certificate).digest()
    return any(hmac.compare_digest(found, digest) for digest in digests)


def certificate_error(peer: str, error: ssl.SSLCertVerificationError) -> DeliveryError:
    """Return the error for a certificate of `peer` that OpenSSL refused."""
    return DeliveryError(
        DeliveryErrorReason.TLS, f"{peer}: certificate refused: {error.verify_message}", retryable=True
    )


def _context_for_authorities(authorities: str, table: Table) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError):
        table.add_problem("ca_file", "contains no certificates in PEM form")
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: str, key: Secret | None, table: Table) -> None:
    """Load `certificate` and its key into `context`; the key is `key` or in the same file."""
    pem = certificate if key is None else f"{certificate}\n{key.reveal()}\n"
    if not _PRIVATE_KEY.search(pem):
        if table.given_form("key") is None:
            table.add_problem("cert_file", "contains no private key: set key_file too")
        elif key is not None:
            table.add_problem("key_file" if "key_file" in table else "key", "contains no private key in PEM form")
        return
    memory_fd = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        with open(memory_fd, "wb", closefd=False) as file:
            file.write(pem.encode())
        # Without a passphrase, even an empty one, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{memory_fd}", password="")
    except (ssl.SSLError, OSError, ValueError):
        table.add_problem("cert_file", "certificate and key do not match, or the key has a passphrase")
    finally:
        os.close(memory_fd)


def _pem(table: Table, key: str) -> str | None:
    """Return the text of the file at `key`; None if it is not given, or after a problem with it."""
    path = table.text(key, "")
    if not path:
        return None
    if not path.startswith("/"):
        table.add_problem(key, f"must be an absolute path, not {path!r}")
        return None
    table.record_file(path)
    try:
        content, status = read_regular_file(path, _MAX_PEM_BYTES)
    except UnusableFile as error:
        table.add_problem(key, f"{path!r} {error}")
        return None
    except OSError as error:
        problem = f"cannot read {path!r}: {error.strerror}"
        (table.add_problem if table.document.require_secrets else table.add_note)(
            key, problem, denied_path=path if isinstance(error, PermissionError) else ""
        )
        return None
    text = content.decode("ascii", "replace")
    if "-----BEGIN " not in text:
        table.add_problem(key, f"{path!r} is not a file in PEM form")
    elif _PRIVATE_KEY.search(text) and (others := other_readers(status, path)):
        table.add_problem(key, f"the private key in {path!r} is open to {others}: {restrict_command(path)}")
    elif flaws := flaws_on_path(path, data_owners()):
        table.add_problem(key, f"{flaws[0].path!r}: {flaws[0]}")
    else:
        return text
    return None
