"""The bytes of a mail with header fields and a text, in 7 bits and with lines of limited length.

The policy is the older of Python's two: the newer one encodes long message ids, which no mail program decodes, and
begins long subjects with an empty line.

Source: RFC 5322 §2.1.1 (998 octets a line), RFC 2047 (encoded words), RFC 2045 §6.7 (quoted-printable).
"""

from __future__ import annotations

import email.generator  # noqa: F401 - Python imports it at the first message
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
    """Return the message. `headers` and `text` hold printable characters only; `text` also line ends."""
    message: Message[Header, Header] = Message(_POLICY)
    for name, value in headers.items():
        # A mail program would decode text in the form of an encoded word: encode it, so that it is shown as it is.
        plain = value.isascii() and "=?" not in value
        message[name] = Header(value, None if plain else _UTF_8, header_name=name)
    message.set_payload(text, _UTF_8)
    return message.as_bytes()


def format_date(wall: float) -> str:
    """Return a time (wall clock, seconds) in the form of mail (RFC 5322), in UTC."""
    return formatdate(wall)
