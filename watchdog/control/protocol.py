"""What goes over the control socket: one JSON object on a line each way, then the end.

A request is `{"request": "notifications list", "arguments": {…}}`; an answer `{"result": …}`, or
`{"error": "…", "exit_code": 1}` with the code that a command ends with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from watchdog.errors import UsageError, WatchdogError

MAX_REQUEST_BYTES = 65_536
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
_FORM = 'a request is {"request": "…", "arguments": {…}}'


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    name: str
    arguments: Mapping[str, Any]


def pack_request(request: Request) -> bytes:
    """Return the bytes of a request."""
    return _line({"request": request.name, "arguments": dict(request.arguments)})


def parse_request(line: bytes) -> Request:
    """Return the request that `line` holds.

    Raises:
        UsageError: it is none.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("the request is no JSON") from None
    if not isinstance(document, dict) or not document.keys() <= {"request", "arguments"}:
        raise UsageError(_FORM)
    name, arguments = document.get("request"), document.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise UsageError(_FORM)
    return Request(name, arguments)


def pack_result(result: object) -> bytes:
    """Return the bytes of an answer."""
    return _line({"result": result})


def pack_error(error: WatchdogError) -> bytes:
    """Return the bytes of an answer that is an error."""
    return _line({"error": str(error), "exit_code": error.exit_code})


def parse_response(line: bytes) -> Any:
    """Return the result that `line` holds.

    Raises:
        WatchdogError: it holds the error, with its exit code; or it is no answer.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    match document:
        case {"result": result}:
            return result
        case {"error": str(text), "exit_code": int(code)}:
            error = WatchdogError(text)
            error.exit_code = code
            raise error
    raise WatchdogError("the daemon's answer is cut or garbled: is it of another version?")


def _line(document: Mapping[str, object]) -> bytes:
    # ASCII: names that are no UTF-8 (surrogate-escaped) stay as they are.
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"
