r"""Escaping of text from the host. Process names and similar texts are attacker input.

All sinks use one reversible escaped form. A control character, and a byte that is not UTF-8, becomes `\x1b`. Other
unprintable characters (bidi controls, zero-width and unassigned characters, spaces other than the space, lone
surrogates) become `\u202e` or `\U000e0001`. A backslash is doubled only where it would otherwise be read as one of
these, so that systemd's own `dev-disk\x2dby.mount` is unchanged. Each sink then adds its own quoting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

ELLIPSIS = "…"

_READS_AS_ESCAPE = re.compile(r"\\(?:\\|x(?:[01][0-9a-f]|7f|[89a-f][0-9a-f])|u[0-9a-f]{4}|U[0-9a-f]{8})")
_MENTION = re.compile(r"[<`]|(?<!\w)@|\[(?=[^\]]{0,200}\]\()")
_NEEDS_QUOTES = re.compile(r'[ ="]')
_LONE_BYTES = range(0xDC80, 0xDD00)  # PEP 383: `surrogateescape` maps bytes that are not UTF-8 to these
_SYSLOG_QUOTED = {'"': r"\"", "\\": r"\\", "]": r"\]"}  # RFC 5424 §6.3.3
_SLACK_QUOTED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # docs.slack.dev, "Escaping text": only these three


def escape_unprintable(text: str, max_characters: int | None = None) -> str:
    """Return `text` with unprintable characters escaped, at most `max_characters` characters long."""
    if max_characters is None:
        return "".join(_pieces(text))
    return _fit(_pieces(text), max_characters, len)


def for_slack(text: str, max_characters: int) -> str:
    """Return `text` for a Slack text object: escaped, without mentions and links, at most `max_characters` long.

    The length is in UTF-16 code units, as in JavaScript. Slack does not document its unit; this one is never shorter.
    """
    return _fit(
        ("".join(_SLACK_QUOTED.get(c, c) for c in piece) for piece in _pieces(text)), max_characters, utf16_length
    )


def for_apprise(text: str, max_characters: int) -> str:
    """Return `text` for an unknown service: escaped, without common forms of mentions, markup and tags."""
    return escape_unprintable(_MENTION.sub(lambda match: _escape(ord(match[0])), text), max_characters)


def for_syslog(text: str, max_octets: int) -> bytes:
    """Return `text` for the MSG part of a syslog record: escaped, UTF-8, at most `max_octets` octets long."""
    return _fit(_pieces(text), max_octets, _octets).encode()


def for_syslog_value(text: str, max_octets: int) -> bytes:
    """Return `text` for a PARAM-VALUE of RFC 5424, without the enclosing quotes, at most `max_octets` octets long."""
    quoted = ("".join(_SYSLOG_QUOTED.get(c, c) for c in piece) for piece in _pieces(text))
    return _fit(quoted, max_octets, _octets).encode()


def for_log(text: str) -> str:
    """Return `text` for a line of a log, with unprintable characters escaped; a backslash is never doubled.

    So a text that is escaped already stays as it is, for the price that it reads like one that had the backslash.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def for_log_lines(text: str) -> str:
    """Return a text of several lines for a terminal or a log: each line as by `for_log`."""
    return "\n".join(map(for_log, text.split("\n")))


def for_log_value(text: str) -> str:
    """Return `text` for the value of key=value in a line: escaped, in quotes where another value could begin in it."""
    escaped = for_log(text)
    if escaped and not _NEEDS_QUOTES.search(escaped):
        return escaped
    return '"' + escaped.replace("\\", r"\\").replace('"', r"\"") + '"'


def utf16_length(text: str) -> int:
    """Return the number of UTF-16 code units of `text`: characters beyond U+FFFF count twice."""
    return len(text) + sum(character > "\uffff" for character in text)


def _pieces(text: str) -> Iterator[str]:
    """Yield the escaped form of each character of `text`. A piece must not be cut."""
    for index, character in enumerate(text):
        if character == "\\":
            following = text[index + 1 : index + 2]
            doubled = not following.isprintable() or _READS_AS_ESCAPE.match(text, index)
            yield r"\\" if doubled else character
        elif character.isprintable():
            yield character
        else:
            yield _escape(ord(character))


def _escape(code: int) -> str:
    if code in _LONE_BYTES:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:  # noqa: PLR2004 - ASCII: byte and code point are equal
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - four digits


def _fit(pieces: Iterable[str], limit: int, size: Callable[[str], int]) -> str:
    """Join `pieces`. If they exceed `limit`, cut between pieces and end with an ellipsis."""
    whole: list[str] = []
    used = 0
    for piece in pieces:
        used += size(piece)
        if used > limit:
            return _cut(whole, limit, size)
        whole.append(piece)
    return "".join(whole)


def _cut(pieces: list[str], limit: int, size: Callable[[str], int]) -> str:
    room = limit - size(ELLIPSIS)
    used = sum(size(piece) for piece in pieces)
    while pieces and used > room:
        used -= size(pieces.pop())
    return "".join(pieces) + ELLIPSIS if room >= 0 else ""


def _octets(text: str) -> int:
    return len(text.encode())
