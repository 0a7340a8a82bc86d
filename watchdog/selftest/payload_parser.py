"""Parses a rendered notification as the program of a receiver does."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Iterable, Iterator
from typing import Any


def parse_payload(receiver_type: str, body: bytes) -> tuple[list[str], list[str]]:
    """Return (shape, texts) of a rendered notification: the names of its fields or lines, and their texts.

    Raises:
        UnicodeDecodeError, json.JSONDecodeError: `body` is no UTF-8, or begins like JSON and is none.
    """
    if receiver_type == "journald":
        fields = list(_journal_fields(body))
        return [name for name, _ in fields], [value for _, value in fields]
    if receiver_type == "email":
        return _read_mail(body)
    text = body.decode()
    if text.startswith(("{", "[{")):
        leaves = [leaf for document in _documents(text) for leaf in _leaves(document, "")]
        return [path for path, _ in leaves], [value for _, value in leaves]
    if receiver_type == "syslog":
        text = text.replace(" \ufeff", " ", 1)  # RFC 5424 §6.4: MSG is UTF-8
    return [""] * text.count("\n"), [text]


def _documents(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:  # one per line, where a notification consists of several
        return [json.loads(line) for line in text.split("\n")]


def _read_mail(body: bytes) -> tuple[list[str], list[str]]:
    mail = email.message_from_bytes(body, policy=email.policy.default)
    texts = [part.get_content() for part in mail.walk() if part.get_content_maintype() == "text"]
    return mail.keys(), [*map(str, mail.values()), *(text.replace("\r\n", "\n") for text in texts)]


def _journal_fields(entries: bytes) -> Iterator[tuple[str, str]]:
    # A field with a newline in it has its length before its value: systemd.io, "Journal native protocol".
    while entries:
        line, _, entries = entries.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if line and not equals:
            size = int.from_bytes(entries[:8], "little")
            value, entries = entries[8 : 8 + size], entries[8 + size + 1 :]
        yield name.decode(), value.decode()


def _leaves(document: Any, path: str) -> Iterator[tuple[str, str]]:
    entries: Iterable[tuple[object, Any]] = ()
    match document:
        case dict():
            entries = document.items()
        case list():
            entries = enumerate(document)
        case str():
            yield path, document
    for key, value in entries:
        yield from _leaves(value, f"{path}/{key}")
