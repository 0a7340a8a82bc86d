"""What a webhook's owner has us say of ourselves: a bearer token or a login, and headers of his own."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from watchdog.config.document import Table
from watchdog.config.secrets import Secret

_NAME = re.compile(
    r"[A-Za-z0-9!#$%&'*+.^`|~-]+"
)  # RFC 9110 §5.6.2, less the underscore: our keys end in _file and the like
_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")  # RFC 9110 §5.5, less what is obsolete
_SECRET = re.compile(
    r"auth|cookie|key|secret|token", re.IGNORECASE
)  # others are plain texts where they stand in the file
_OURS = re.compile(
    r"host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|accept-encoding|proxy-.*"
    r"|x-notification-id|x-watchdog-.*",
    re.IGNORECASE,
)


def headers_from_table(table: Table) -> Mapping[str, Secret]:
    """Read `bearer_token`, or `username` and `password`, and the table `headers`; each secret also from a file."""
    found = _headers(table.table("headers"))
    token = table.secret("bearer_token", required=False)
    name = table.text("username", "")
    password = table.secret("password", required=name != "")
    if password is not None and not name:
        table.add_problem("username", "missing: a password needs one")
    ways = [token is not None, password is not None, any(header.lower() == "authorization" for header in found)]
    if sum(ways) > 1:
        table.add_problem("headers" if ways[2] else "username", "give one way to log in only")
    if token is not None:
        _check(table, "bearer_token", token)
        return {**found, "Authorization": Secret(f"Bearer {token.reveal()}")}
    if password is not None:
        login = f"{name}:{password.reveal()}".encode("utf-8", "surrogateescape")
        return {**found, "Authorization": Secret(f"Basic {base64.b64encode(login).decode()}")}
    return found


def _headers(table: Table) -> dict[str, Secret]:
    found: dict[str, Secret] = {}
    for key in table:
        name = re.sub(r"_(file|env|credential)$", "", key)
        is_secret = key != name or _SECRET.search(name)
        value = table.secret(name) if is_secret else Secret(table.text(name))
        if not _NAME.fullmatch(name):
            table.add_problem(key, "is no name of a header")
        elif _OURS.fullmatch(name):
            table.add_problem(key, "is set by ourselves")
        elif name.lower() in {other.lower() for other in found}:
            table.add_problem(key, "is given twice")
        elif value is not None and not table.has_problem(key) and _check(table, name, value):
            found[name] = value
    table.reject_unknown_keys()
    return found


def _check(table: Table, name: str, value: Secret) -> bool:
    if _VALUE.fullmatch(value.reveal()):
        return True
    given = next(form for form in table if re.fullmatch(rf"{re.escape(name)}(_[a-z]+)?", form))
    table.add_problem(given, "must be printable ASCII on one line")
    return False
