"""Protocol of the control socket: one JSON object on a line in each direction, then the connection ends.

A request is `{"version": 1, "request": "notifications list", "arguments": {…}}`. A response is `{"version": 1,
"result": …}`, or `{"version": 1, "error": "…", "exit_code": 1}` with the exit code of the command. A request without a
version is taken as one of the present version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from watchdog.errors import UsageError, WatchdogError

PROTOCOL_VERSION = 1
"""Raised when a request or an answer changes so that commands and daemons of the version before misread it."""

MAX_REQUEST_BYTES = 65_536
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
_FORM = 'a request is {"request": "…", "arguments": {…}}'


@dataclass(frozen=True, slots=True)
class Request:
    """Name and arguments of a request."""

    name: str
    arguments: Mapping[str, Any]


def pack_request(request: Request) -> bytes:
    """Return the bytes of a request."""
    return _line({"version": PROTOCOL_VERSION, "request": request.name, "arguments": dict(request.arguments)})


def parse_request(line: bytes) -> Request:
    """Return the request in `line`.

    Raises:
        UsageError: `line` is not a request, or one of another version.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("the request is not JSON") from None
    if not isinstance(document, dict):
        raise UsageError(_FORM)
    version = document.pop("version", PROTOCOL_VERSION)
    if version != PROTOCOL_VERSION or isinstance(version, bool):
        raise UsageError(
            f"this daemon answers requests of version {PROTOCOL_VERSION} only",
            remedy="use a command of the daemon's version",
        )
    if not document.keys() <= {"request", "arguments"}:
        raise UsageError(_FORM)
    name, arguments = document.get("request"), document.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise UsageError(_FORM)
    return Request(name, arguments)


def pack_result(result: object) -> bytes:
    """Return the bytes of a response with a result."""
    return _line({"version": PROTOCOL_VERSION, "result": result})


def pack_error(error: WatchdogError) -> bytes:
    """Return the bytes of a response with an error."""
    return _line({"version": PROTOCOL_VERSION, "error": str(error), "exit_code": error.exit_code})


def parse_response(line: bytes) -> Any:
    """Return the result in the response `line`.

    Raises:
        WatchdogError: the response is an error, with its exit code; or it is not a response of this version.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    match document:
        case {"version": version, "result": result} if version == PROTOCOL_VERSION:
            return result
        case {"version": version, "error": str(text), "exit_code": int(code)} if version == PROTOCOL_VERSION:
            error = WatchdogError(text)
            error.exit_code = code
            raise error
    raise WatchdogError(
        "the daemon's response is incomplete or malformed", remedy="check that daemon and command have the same version"
    )


def _line(document: Mapping[str, object]) -> bytes:
    # ASCII output keeps surrogate-escaped names, which are not UTF-8.
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"
