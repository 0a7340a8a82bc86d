"""A mail's bytes: header fields and a text, safe in 7 bits and from lines without end.

The policy is the older of Python's two: the newer one encodes long message ids, which nobody decodes, and begins long
subjects on an empty line.

Source: RFC 5322 §2.1.1 (998 octets a line), RFC 2047 (encoded words), RFC 2045 §6.7 (quoted-printable).
"""

from __future__ import annotations

import email.generator  # noqa: F401 - the library itself imports it when the first message is written
from collections.abc import Mapping
from email.charset import QP, Charset
from email.header import Header
from email.message import Message
from email.policy import compat32
from email.utils import formatdate

_POLICY = compat32.clone(linesep="\r\n")
_UTF_8 = Charset("utf-8")
_UTF_8.body_encoding = QP


def build_message(headers: Mapping[str, str], text: str) -> bytes:
    """Return the message. `headers` and `text` hold nothing that does not show itself, line ends in `text` aside."""
    made: Message[Header, Header] = Message(_POLICY)
    for name, value in headers.items():
        # What reads as an encoded word would be decoded, to whatever its author hid in it.
        plain = value.isascii() and "=?" not in value
        made[name] = Header(value, None if plain else _UTF_8, header_name=name)
    made.set_payload(text, _UTF_8)
    return made.as_bytes()


def format_date(wall: float) -> str:
    """Return a time as mail writes it, in UTC."""
    return formatdate(wall)
