"""What a message in Slack looks like: Block Kit, inside every limit that Slack has.

Source: docs.slack.dev, "Block Kit", "Formatting text" (escaping), "Truncating content".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.receivers.render import notification_text
from watchdog.routing.notification import DIGEST_GROUP_KEY, Notification
from watchdog.rules.language.rule import Severity

# Slack refuses a message as too long somewhere above 11,000 characters, at a point that it does not document.
MAX_CHARACTERS = 8_000
MAX_BLOCKS = 50
_ROOM_FOR_REST = 700  # the blocks that come after the alerts
_LONGEST_HEADER = 150
_LONGEST_TEXT = 300
_LONGEST_LINE = 480
_LONGEST_OF_DIGEST = 140  # 40 of them are within the limit of a message
_LONGEST_SECTION = 3_000
_LONGEST_REMARK = 300
_BRIEF_LINES = 3  # how much, who, since when and why

_SIGNS = {Severity.CRITICAL: "\N{LARGE RED CIRCLE}", Severity.WARNING: "\N{LARGE ORANGE CIRCLE}"}
_RESOLVED_SIGN = "\N{LARGE GREEN CIRCLE}"

JsonObject = dict[str, Any]


def build_message(notification: Notification, *, brief: bool = False, remark: str = "") -> JsonObject:
    """Return `text` and `blocks` that tell of `notification`: of each alert all lines, or, `brief`, the first few.

    `remark`: words of ours on the message itself, for its last line.
    """
    header = (
        f"{_sign(notification)} {sanitize.for_slack(notification_text.status_line(notification), _LONGEST_HEADER - 4)}"
    )
    blocks: list[JsonObject] = [{"type": "header", "text": _plain(header)}]
    text = fallback_text(notification)
    room = MAX_CHARACTERS - _size({"text": text, "blocks": blocks}) - _ROOM_FOR_REST
    blocks += _sections(notification, brief=brief, room=room)
    origin = sanitize.for_slack(f"{notification.reason_text}, notification {notification.id}", _LONGEST_REMARK)
    elements = [_plain(line) for line in (origin, sanitize.for_slack(remark, _LONGEST_REMARK)) if line]
    blocks.append({"type": "context", "block_id": block_id(notification.id), "elements": elements})
    return {"text": text, "blocks": blocks}


def without_blocks(message: JsonObject) -> JsonObject:
    """Return `message` without blocks, where Slack does not take them: the title alone."""
    return {"text": message["text"], "blocks": []}


def block_id(notification_id: str) -> str:
    """Return the id of the block by which the message of a notice can be told from others."""
    return sanitize.escape_unprintable(f"notification-{notification_id}", 255)


def fallback_text(notification: Notification) -> str:
    """Return what a push message and a screen reader give; Slack shows the blocks instead where it can."""
    return (
        f"{_sign(notification)} {sanitize.for_slack(notification_text.notification_title(notification), _LONGEST_TEXT)}"
    )


def describe_size(message: JsonObject) -> str:
    """Return how large a message is against the limits."""
    return f"{_size(message):,} of {MAX_CHARACTERS:,} characters; {len(message['blocks'])} of {MAX_BLOCKS} blocks"


def _sections(notification: Notification, *, brief: bool, room: int) -> Iterator[JsonObject]:
    """Return the sections of as many alerts as there is room for, and one that counts the others."""
    alerts = notification_text.worst_first(notification.alerts)
    if notification.group_key == DIGEST_GROUP_KEY:
        yield from _packed(_list(alerts, notification, room))
        return
    told = [_facts(alert, notification, brief=brief) for alert in alerts]
    # Evidence has what the facts leave, those of the alerts that come after too.
    spare = 0 if brief else room - sum(map(_weight, told))
    blocks_left = MAX_BLOCKS - 3  # header, the count of what is left out, context
    for index, (alert, lines) in enumerate(zip(alerts, told, strict=True)):
        if index == 0:  # the worst alert is told whatever its length: its last lines go first
            _cut(lines, room)
        before = _weight(lines)
        _add_evidence(lines, alert, notification, spare)
        spare -= _weight(lines) - before
        sections = list(_packed(lines))
        room -= sum(map(_size, sections))
        blocks_left -= len(sections)
        if room < 0 or blocks_left < 0:
            yield _section(_left_out(len(alerts) - index))
            return
        yield from sections


def _list(alerts: Sequence[Alert], notification: Notification, room: int) -> list[str]:
    """Return a line for each alert of a digest: so all of them find room."""
    lines = [
        f"*{sanitize.for_slack(notification_text.alert_title(alert, notification), _LONGEST_OF_DIGEST)}*"
        for alert in alerts
    ]
    told = list(lines)
    while len(told) > 1 and _weight(told) > room:
        told.pop()
    return told if len(told) == len(lines) else [*told, _left_out(len(lines) - len(told))]


def _left_out(count: int) -> str:
    return f"and {count} more {'alert' if count == 1 else 'alerts'}"


def _cut(lines: list[str], room: int) -> None:
    if _weight(lines) <= room:
        return
    while len(lines) > 1 and _weight([*lines, sanitize.ELLIPSIS]) > room:
        lines.pop()
    lines.append(sanitize.ELLIPSIS)


def _add_evidence(lines: list[str], alert: Alert, notification: Notification, spare: int) -> None:
    """Add the lines of evidence that fit into `spare` and, in a notice of many alerts, into their section."""
    sections, weight = len(list(_packed(lines))), _weight(lines)
    may_grow = len(notification.alerts) * (sections + 1) < MAX_BLOCKS - 3
    for line in notification_text.evidence_lines(alert, notification):
        longer = [*lines, sanitize.for_slack(line, _LONGEST_LINE)]
        if _weight(longer) - weight > spare or not (may_grow or len(list(_packed(longer))) == sections):
            return
        lines.append(longer[-1])


def _weight(lines: Sequence[str]) -> int:
    return sum(map(_size, _packed(lines)))


def _packed(lines: Sequence[str]) -> Iterator[JsonObject]:
    """Return `lines` in as few sections as hold them."""
    together = ""
    for line in lines:
        longer = f"{together}\n{line}" if together else line
        if sanitize.utf16_length(longer) > _LONGEST_SECTION:
            yield _section(together)
            longer = line
        together = longer
    yield _section(together)


def _facts(alert: Alert, notification: Notification, *, brief: bool) -> list[str]:
    lines = [f"*{sanitize.for_slack(notification_text.alert_title(alert, notification), _LONGEST_LINE)}*"]
    facts = notification_text.fact_lines(alert, notification)
    lines += [sanitize.for_slack(line, _LONGEST_LINE) for line in (facts[:_BRIEF_LINES] if brief else facts)]
    if alert.runbook is not None:
        lines.insert(1, f"<{sanitize.for_slack(alert.runbook.replace('|', '%7C'), _LONGEST_LINE)}|runbook>")
    return lines


def _section(text: str) -> JsonObject:
    # verbatim: Slack makes no links of its own out of what looks like a URL, a channel or a person.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _plain(text: str) -> JsonObject:
    return {"type": "plain_text", "text": text, "emoji": False}


def _size(part: JsonObject) -> int:
    return sanitize.utf16_length(json.dumps(part, ensure_ascii=False))


def _sign(notification: Notification) -> str:
    if notification.status == "resolved":
        return _RESOLVED_SIGN
    return _SIGNS[notification_text.worst_first(notification.alerts)[0].severity]
