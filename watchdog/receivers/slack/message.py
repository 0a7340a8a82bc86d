"""A Slack message in Block Kit, within every limit of Slack.

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
_RESERVED_CHARACTERS = 850  # for the blocks after the alerts
_MAX_HEADER = 150
_MAX_FALLBACK_TEXT = 300
_MAX_LINE = 480
_MAX_DIGEST_LINE = 140  # 40 of them are within the limit of a message
_MAX_SECTION = 3_000
_MAX_REMARK = 300
_MAX_BRIEF_FACTS = 3  # value and limit, labels, start and reason
_OTHER_BLOCKS = 3  # header, count of the alerts left out, context

_SIGNS = {Severity.CRITICAL: "\N{LARGE RED CIRCLE}", Severity.WARNING: "\N{LARGE ORANGE CIRCLE}"}
_RESOLVED_SIGN = "\N{LARGE GREEN CIRCLE}"

JsonObject = dict[str, Any]


def build_message(notification: Notification, *, brief: bool = False, remark: str = "") -> JsonObject:
    """Return `text` and `blocks` of the message about `notification`.

    `brief`: only the first lines of each alert. `remark`: a remark about the message itself, for its last line.
    """
    status = sanitize.for_slack(notification_text.status_line(notification), _MAX_HEADER - 4)
    blocks: list[JsonObject] = [{"type": "header", "text": _plain_text(f"{_sign(notification)} {status}")}]
    text = fallback_text(notification)
    max_characters = MAX_CHARACTERS - _size({"text": text, "blocks": blocks}) - _RESERVED_CHARACTERS
    blocks += _sections(notification, brief=brief, max_characters=max_characters)
    origin = sanitize.for_slack(f"{notification.reason_text}, notification {notification.id}", _MAX_REMARK)
    next_step = sanitize.for_slack(notification_text.next_step(notification), _MAX_REMARK)
    elements = [_plain_text(line) for line in (origin, next_step, sanitize.for_slack(remark, _MAX_REMARK)) if line]
    blocks.append({"type": "context", "block_id": block_id(notification.id), "elements": elements})
    return {"text": text, "blocks": blocks}


def without_blocks(message: JsonObject) -> JsonObject:
    """Return `message` with its title only, for use after Slack refused the blocks."""
    return {"text": message["text"], "blocks": []}


def block_id(notification_id: str) -> str:
    """Return the block id that identifies the message of a notification."""
    return sanitize.escape_unprintable(f"notification-{notification_id}", 255)


def fallback_text(notification: Notification) -> str:
    """Return the text for push messages and screen readers; elsewhere Slack shows the blocks."""
    title = sanitize.for_slack(notification_text.notification_title(notification), _MAX_FALLBACK_TEXT)
    return f"{_sign(notification)} {title}"


def describe_size(message: JsonObject) -> str:
    """Return the size of `message` and its limits, as text."""
    return f"{_size(message):,} of {MAX_CHARACTERS:,} characters; {len(message['blocks'])} of {MAX_BLOCKS} blocks"


def _sections(notification: Notification, *, brief: bool, max_characters: int) -> Iterator[JsonObject]:
    """Return the sections of as many alerts as fit, and one with the count of the other alerts."""
    alerts = notification_text.worst_first(notification.alerts)
    if notification.group_key == DIGEST_GROUP_KEY:
        yield from _as_sections(_digest_lines(alerts, notification, max_characters))
        return
    facts = [_fact_lines(alert, notification, brief=brief) for alert in alerts]
    # Evidence gets only the characters that the facts of all alerts leave free.
    evidence_characters = 0 if brief else max_characters - sum(map(_section_size, facts))
    characters_left, blocks_left = max_characters, MAX_BLOCKS - _OTHER_BLOCKS
    for index, (alert, lines) in enumerate(zip(alerts, facts, strict=True)):
        if index == 0:  # the worst alert is always shown; if it is too long, its last lines are cut
            _truncate(lines, max_characters)
        size = _section_size(lines)
        _add_evidence(lines, alert, notification, evidence_characters)
        evidence_characters -= _section_size(lines) - size
        sections = list(_as_sections(lines))
        characters_left -= sum(map(_size, sections))
        blocks_left -= len(sections)
        if characters_left < 0 or blocks_left < 0:
            yield _section(_omitted_count(len(alerts) - index))
            return
        yield from sections


def _digest_lines(alerts: Sequence[Alert], notification: Notification, max_characters: int) -> list[str]:
    """Return one line for each alert of a digest, so that as many as possible fit."""
    titles = (notification_text.alert_title(alert, notification) for alert in alerts)
    lines = [f"*{sanitize.for_slack(title, _MAX_DIGEST_LINE)}*" for title in titles]
    shown = list(lines)
    while len(shown) > 1 and _section_size(shown) > max_characters:
        shown.pop()
    return shown if len(shown) == len(lines) else [*shown, _omitted_count(len(lines) - len(shown))]


def _omitted_count(count: int) -> str:
    return f"and {count} more {'alert' if count == 1 else 'alerts'}"


def _truncate(lines: list[str], max_characters: int) -> None:
    if _section_size(lines) <= max_characters:
        return
    while len(lines) > 1 and _section_size([*lines, sanitize.ELLIPSIS]) > max_characters:
        lines.pop()
    lines.append(sanitize.ELLIPSIS)


def _add_evidence(lines: list[str], alert: Alert, notification: Notification, max_added: int) -> None:
    """Append lines of evidence, at most `max_added` characters; with many alerts, without another section."""
    sections, size = len(list(_as_sections(lines))), _section_size(lines)
    may_add_section = len(notification.alerts) * (sections + 1) < MAX_BLOCKS - _OTHER_BLOCKS
    for line in notification_text.evidence_lines(alert, notification):
        longer = [*lines, sanitize.for_slack(line, _MAX_LINE)]
        has_section = may_add_section or len(list(_as_sections(longer))) == sections
        if _section_size(longer) - size > max_added or not has_section:
            return
        lines.append(longer[-1])


def _section_size(lines: Sequence[str]) -> int:
    return sum(map(_size, _as_sections(lines)))


def _as_sections(lines: Sequence[str]) -> Iterator[JsonObject]:
    """Return `lines` in the smallest number of sections."""
    text = ""
    for line in lines:
        longer = f"{text}\n{line}" if text else line
        if sanitize.utf16_length(longer) > _MAX_SECTION:
            yield _section(text)
            longer = line
        text = longer
    yield _section(text)


def _fact_lines(alert: Alert, notification: Notification, *, brief: bool) -> list[str]:
    lines = [f"*{sanitize.for_slack(notification_text.alert_title(alert, notification), _MAX_LINE)}*"]
    facts = notification_text.fact_lines(alert, notification)
    lines += [sanitize.for_slack(line, _MAX_LINE) for line in (facts[:_MAX_BRIEF_FACTS] if brief else facts)]
    addresses = {"runbook": alert.runbook, "dashboard": alert.identity.generator_url}
    links = [
        f"<{sanitize.for_slack(url.replace('|', '%7C'), _MAX_LINE)}|{text}>" for text, url in addresses.items() if url
    ]
    return [lines[0], *links, *lines[1:]]


def _section(text: str) -> JsonObject:
    # verbatim: Slack does not turn URLs, channel names or user names in the text into links.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _plain_text(text: str) -> JsonObject:
    return {"type": "plain_text", "text": text, "emoji": False}


def _size(part: JsonObject) -> int:
    return sanitize.utf16_length(json.dumps(part, ensure_ascii=False))


def _sign(notification: Notification) -> str:
    if notification.status == "resolved":
        return _RESOLVED_SIGN
    return _SIGNS[notification_text.worst_first(notification.alerts)[0].severity]
