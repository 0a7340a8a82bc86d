"""Header fields that a webhook's table configures: a bearer token or a login, and any other fields."""

from __future__ import annotations

import base64
import re
import urllib.parse
from collections.abc import Mapping

from watchdog.config.document import Table
from watchdog.config.secrets import Secret

# RFC 9110 §5.6.2 without the underscore: the keys of secret forms end in _file, _env or _credential.
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")  # RFC 9110 §5.5 without its obsolete forms
# The values of these fields are secrets; other values may stand in a file that others can read.
_SECRET_NAME = re.compile(r"auth|cookie|key|secret|token", re.IGNORECASE)
_RESERVED_NAME = re.compile(
    r"host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|accept-encoding|proxy-.*"
    r"|x-notification-id|x-watchdog-.*",
    re.IGNORECASE,
)


def headers_from_table(table: Table) -> Mapping[str, Secret]:
    """Read `bearer_token`, or `username` and `password`, and the table `headers`; secrets in any of their forms."""
    headers = _fields_from_table(table.table("headers"))
    token = table.secret("bearer_token", required=False)
    username = table.text("username", "")
    password = table.secret("password", required=username != "")
    if password is not None and not username:
        table.add_problem("username", "missing: required with password")
    has_header = any(header.lower() == "authorization" for header in headers)
    if (token is not None) + (password is not None) + has_header > 1:
        key = "headers" if has_header else "username"
        table.add_problem(key, "give only one of bearer_token, username and an Authorization header")
    if token is not None:
        _is_valid(table, "bearer_token", token)
        return {**headers, "Authorization": Secret(f"Bearer {token.reveal()}")}
    if password is not None:
        return {**headers, "Authorization": Secret(basic_authorization(username, password.reveal()))}
    return headers


def reject_second_login(table: Table, key: str, url: Secret | None, headers: Mapping[str, Secret]) -> None:
    """Add a problem if the URL at the secret `key` has a login besides an Authorization field in `headers`.

    Only one of them would be sent.
    """
    has_header = any(name.lower() == "authorization" for name in headers)
    if has_header and url is not None and has_login(url):
        table.add_problem(
            table.given_form(key) or key,
            "give only one of a login in the URL, bearer_token, username and an Authorization header",
        )


def has_login(url: Secret) -> bool:
    """Return whether `url` has a login before its host."""
    try:
        return "@" in urllib.parse.urlsplit(url.reveal()).netloc
    except ValueError:  # no URL, which the check of its form reports
        return False


def basic_authorization(username: str, password: str) -> str:
    """Return the value of an Authorization field with a login, RFC 7617 §2."""
    login = f"{username}:{password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(login).decode()}"


def _fields_from_table(table: Table) -> dict[str, Secret]:
    fields: dict[str, Secret] = {}
    for key in table:
        name = re.sub(r"_(file|env|credential)$", "", key)
        is_secret = key != name or _SECRET_NAME.search(name)
        value = table.secret(name) if is_secret else Secret(table.text(name))
        if not _NAME.fullmatch(name):
            table.add_problem(key, "not a valid header name")
        elif _RESERVED_NAME.fullmatch(name):
            table.add_problem(key, "is set by bpf-watchdog and cannot be configured")
        elif name.lower() in {other.lower() for other in fields}:
            table.add_problem(key, "is a duplicate: header names ignore case")
        elif value is not None and not table.has_problem(key) and _is_valid(table, name, value):
            fields[name] = value
    table.reject_unknown_keys()
    return fields


def _is_valid(table: Table, name: str, value: Secret) -> bool:
    if _VALUE.fullmatch(value.reveal()):
        return True
    key = next(form for form in table if re.fullmatch(rf"{re.escape(name)}(_[a-z]+)?", form))
    table.add_problem(key, "must be printable ASCII on one line")
    return False
