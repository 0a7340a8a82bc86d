"""Ten thousand names that a process may give itself, rendered by every type of receiver.

A receiver is built from `SETTINGS`, else from its example in docs/receivers.md with made-up secrets: a new type is
covered as soon as it is documented there.
"""

from __future__ import annotations

import dataclasses
import email
import email.policy
import html
import json
import random
import re
import tomllib
from pathlib import Path

import pytest

import factories
from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.receivers.registry import RECEIVER_TYPES, build_receivers
from watchdog.rules.language import template

CHECKOUT = Path(__file__).parents[2]
CERTIFICATE = CHECKOUT / "tests/integration/receivers/localhost.pem"
NAMES = 10_000
COMM_BYTES, COMMAND_LINE_BYTES = 15, 256
HARMLESS = "harmless"
SUMMARY = template.parse_summary("{process} opens {value:rate} connections (limit {threshold:rate})", ["process"])

PIECES = [
    *(b"\x1b[2J", b"\x1b]0;owned\x07", b"\x9b31m", b"\x1b", b"\x00", b"\x7f", b"\t", b"\x85"),
    *(b"\r\n", b"\n", b"\r", b"\n<26>1 - - ", b"\r\nBcc: a@b", b"\n.\n", b"\\n", b"\\", b"\\x1b", b"\\u202e"),
    *("\u202e\u2066\u200b\ufeff\u2028\u00a0\u00ad".encode(), "\u2028".encode(), "\U000e0041".encode(), b"\xe2\x80"),
    *(b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"),  # no UTF-8: lone surrogates, overlong, too high
    *(b"<!channel>", b"<@U0AB>", b"<#C1|x>", b"<http://x|y>", b"@here", b"```", b"`id`", b"*b*", b"_i_", b"~s~"),
    *(b"%s", b"%n", b"{0.__class__}", b"{process}", b"{{", b"}}", b"${x}", b"$(id)", b"$!all", b"%msg%"),
    *(b"../", b"/etc/passwd", b"~root", b"|sh", b";", b"&", b"&amp;", b"&lt;", b"<b>", b"-->", b"]]>"),
    *(b'"', b"'", b'"] [x@1 y="', b"]", b"=", b'","a":"', b" ", b"", b"a", b"kworker/0:1", "é日🔥".encode()),
]

SETTINGS = {
    "alertmanager": {"urls": ["http://127.0.0.1:9093"]},
    "apprise": {"urls": "json://127.0.0.1/"},
    "command": {"command": ["/bin/true"]},
    "console": {},
    "email": {"host": "127.0.0.1", "tls": "none", "from": "watchdog@example.net", "to": ["oncall@example.net"]},
    "journald": {},
    "pagerduty": {"routing_key": "0123456789abcdef" * 2},
    "syslog": {"format": "rfc5424"},
}
SECRETS = {
    r"(?:.*_)?(?:routing|integration)_key_file": "0123456789abcdef" * 2,
    r"(?:.*_)?(?:cert|certificate|ca|key)s?_file": CERTIFICATE.read_text(),
    r"(?:.*_)?token_file": "xoxb-0-0-made-up",
    r"(?:.*_)?password_file": "made-up",
    r".*_file": "https://alerts.example.net/made-up",
}


def names():
    """Yield (process name, command line); many are not UTF-8, none is empty."""
    randomness = random.Random(1)
    for _ in range(NAMES):
        found = []
        for max_bytes in (COMM_BYTES, COMMAND_LINE_BYTES):
            whole = b"".join(randomness.choices(PIECES, k=randomness.randint(1, 40)))
            start = randomness.choice((0, randomness.randint(0, 3)))  # a cut may fall into a character
            found.append((whole[start : start + max_bytes] or b"\x1b").decode("utf-8", "surrogateescape"))
        yield tuple(found)


def examples():
    """Return the first example of each receiver type in the docs."""
    found = {}
    for block in re.findall(
        r"^```toml\n(.*?)^```", (CHECKOUT / "docs/receivers.md").read_text(), re.MULTILINE | re.DOTALL
    ):
        for table in tomllib.loads(block).get("receiver", []):
            found.setdefault(table["type"], table)
    return found | SETTINGS


@pytest.fixture(params=sorted(RECEIVER_TYPES))
def receiver(request, tmp_path):
    """Build a receiver of each type."""
    table = {**examples()[request.param], "name": "oncall", "type": request.param}
    for key, value in table.items():
        if key.endswith("_file") and isinstance(value, str):
            secret = next(text for pattern, text in SECRETS.items() if re.fullmatch(pattern, key))
            (tmp_path / key).write_text(secret)
            (tmp_path / key).chmod(0o600)
            table[key] = str(tmp_path / key)
    lines = [f"{key} = {toml(value)}" for key, value in table.items()]
    text = "\n".join(["[[receiver]]", *lines])
    return build_receivers(read_settings(Document(text, tomllib.loads(text), "watchdog.toml")))["oncall"]


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def notice_about(name, command_line):
    """Return a notification as the daemon makes it, with the name in every field that can hold one."""
    labels = (("exe", command_line), ("process", name), ("unit", name))
    values = {"process": name, "value": 612.0, "threshold": 500.0}
    alert = factories.make_alert(
        labels=labels,
        summary=template.render_template(SUMMARY, values),
        value=612.0,
        threshold=500.0,
        reason=f"{name} is above 500/s",
    )
    return factories.make_notification(alert)


def read(kind, rendered):
    """Return the message as its receiving program parses it: its structure, and its texts without quoting."""
    if kind == "journald":
        fields = list(journal_fields(rendered))
        return [name for name, _ in fields], [value for _, value in fields]
    text = rendered.decode()  # UTF-8, or it raises
    if text.startswith(("{", "[{")):
        shape, texts = leaves([json.loads(line) for line in text.split("\n")])
        return shape, [html.unescape(one) for one in texts] if kind.startswith("slack") else texts
    if re.match(r"[A-Z][A-Za-z-]+: ", text):
        message = email.message_from_bytes(rendered, policy=email.policy.default)
        bodies = [
            part.get_content().replace("\r\n", "\n") for part in message.walk() if part.get_content_maintype() == "text"
        ]
        return (message.keys(), len(bodies)), [*map(str, message.values()), *bodies]
    if kind == "syslog":
        text = text.replace(" \ufeff", " ", 1)  # RFC 5424: MSG is UTF-8
    return text.count("\n"), [text]


def journal_fields(entry):
    """Yield names and values of an entry in journald's native protocol (systemd.io, JOURNAL_NATIVE_PROTOCOL)."""
    while entry:
        line, _, entry = entry.partition(b"\n")
        if not line:
            continue  # between two entries
        name, equals, value = line.partition(b"=")
        if not equals:
            size, entry = int.from_bytes(entry[:8], "little"), entry[8:]
            value, entry = entry[:size], entry[size + 1 :]
        yield name.decode(), value.decode()


def leaves(document, path=""):
    """Return the paths of a JSON document, and its texts."""
    if isinstance(document, str):
        return [path], [document]
    if not isinstance(document, dict | list):
        return [path], []
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    found = [leaves(value, f"{path}/{key}") for key, value in entries]
    return [one for paths, _ in found for one in paths], [one for _, texts in found for one in texts]


def unescape(text):
    """Decode the escapes that docs/receivers.md describes."""

    def original(match):
        byte, character = match[1], match[2] or match[3]
        if byte:
            return bytes([int(byte, 16)]).decode("utf-8", "surrogateescape")
        return chr(int(character, 16)) if character else "\\"

    return re.sub(r"\\\\|\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})", original, text)


def test_ten_thousand_hostile_names_arrive_as_one_record_each_harmless_and_readable(receiver):
    shape, texts = read(receiver.type, receiver.render(notice_about(HARMLESS, HARMLESS)))
    assert any(HARMLESS in text for text in texts)
    for name, command_line in names():
        rendered = receiver.render(notice_about(name, command_line))
        found_shape, found = read(receiver.type, rendered)
        assert found_shape == shape
        assert [text for text in found if not text.replace("\n", "").isprintable()] == []
        assert any(name in unescape(text) for text in found)
        if receiver.type.startswith("slack"):
            assert re.search(rb"<[!@#h]", rendered) is None


def test_hostile_names_do_not_change_the_number_of_records(receiver):
    harmless, hostile = (
        dataclasses.replace(notification, alerts=notification.alerts * 3)
        for notification in (notice_about(HARMLESS, HARMLESS), notice_about("\r\n<26>1", "\n[FIRING]"))
    )
    assert read(receiver.type, receiver.render(hostile))[0] == read(receiver.type, receiver.render(harmless))[0]
