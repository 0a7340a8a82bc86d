"""Slack: incoming webhooks with Block Kit, inside every limit that Slack has.

Source: docs.slack.dev, "Sending messages using incoming webhooks", "Block Kit", "Formatting text" (escaping).
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

from watchdog.alerts.alert import Alert
from watchdog.alerts.notice import DIGEST, Notice
from watchdog.document import Table
from watchdog.notify import http, render, sanitize
from watchdog.notify.receiver import Receiver
from watchdog.rules.schema import Severity

# Slack refuses a message as too long somewhere above 11,000 characters, at a point that it does not document.
MOST_CHARACTERS = 8_000
_ROOM_FOR_REST = 400  # the blocks that come after the alerts
_LONGEST_HEADER = 150
_LONGEST_TEXT = 300
_LONGEST_LINE = 480  # six lines stay under the 3,000 of a section

_SIGNS = {Severity.CRITICAL: "\N{LARGE RED CIRCLE}", Severity.WARNING: "\N{LARGE ORANGE CIRCLE}"}
_RESOLVED_SIGN = "\N{LARGE GREEN CIRCLE}"

_GONE = ": the webhook has been removed or disabled, make a new one"
_REFUSED = ": Slack refuses the message's form, please report this"
_HINTS = {
    b"no_service": _GONE,
    b"no_service_id": _GONE,
    b"no_active_hooks": _GONE,
    b"no_team": _GONE,
    b"team_disabled": _GONE,
    b"invalid_token": _GONE,
    b"user_not_found": _GONE,
    b"channel_not_found": ": the webhook's channel is gone, make a new webhook",
    b"channel_is_archived": ": the webhook's channel is archived",
    b"action_prohibited": ": an administrator of the workspace does not allow this webhook",
    b"posting_to_general_channel_denied": ": the workspace does not let webhooks post to its general channel",
    b"invalid_payload": _REFUSED,
    b"invalid_blocks": _REFUSED,
    b"msg_blocks_too_long": _REFUSED,
}


class Slack(Receiver):
    """Posts each notice as one message."""

    type: ClassVar[str] = "slack"

    def __init__(self, name: str, endpoint: http.Endpoint) -> None:
        """Post to `endpoint`, an incoming webhook of a channel."""
        super().__init__(name)
        self._endpoint = endpoint

    @classmethod
    def from_table(cls, name: str, table: Table) -> Self:
        """Read `webhook_url` (or `webhook_url_file`, `webhook_url_env`)."""
        return cls(name, http.endpoint_from_table(table, "webhook_url"))

    def render(self, notice: Notice) -> bytes:
        """Return the message's JSON."""
        return json.dumps(_message(notice), ensure_ascii=False, separators=(",", ":")).encode()

    def send(self, notice: Notice, deadline_seconds: float) -> None:
        """Post it; a 2xx status says that Slack has it."""
        headers = {"Content-Type": "application/json; charset=utf-8", "X-Notification-Id": notice.id}
        answer = self._endpoint.post(self.render(notice), headers, deadline_seconds)
        http.check(answer, self._endpoint.host, _HINTS.get(answer.body.strip(), ""))

    def destination(self) -> str:
        """Name the host."""
        return f"Slack {self._endpoint.host}"


def _message(notice: Notice) -> dict[str, Any]:
    header = f"{_sign(notice)} {sanitize.for_slack(render.headline(notice), _LONGEST_HEADER - 4)}"
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": header, "emoji": False}}]
    # What a push message and a screen reader give; Slack shows the blocks instead where it can.
    text = f"{_sign(notice)} {sanitize.for_slack(render.notice_title(notice), _LONGEST_TEXT)}"
    used = len(json.dumps({"text": text, "blocks": blocks}, ensure_ascii=False)) + _ROOM_FOR_REST
    alerts = render.worst_first(notice.alerts)
    for index, alert in enumerate(alerts):
        section = _section(_alert_text(alert, notice))
        used += len(json.dumps(section, ensure_ascii=False))
        if used > MOST_CHARACTERS:
            blocks.append(_section(f"and {len(alerts) - index} more alerts"))
            break
        blocks.append(section)
    origin = sanitize.for_slack(f"{notice.reason}, notification {notice.id}", _ROOM_FOR_REST // 2)
    blocks.append({"type": "context", "elements": [{"type": "plain_text", "text": origin, "emoji": False}]})
    return {"text": text, "blocks": blocks}


def _section(text: str) -> dict[str, Any]:
    # verbatim: Slack makes no links of its own out of what looks like a URL, a channel or a person.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _alert_text(alert: Alert, notice: Notice) -> str:
    lines = [f"*{sanitize.for_slack(render.alert_title(alert, notice), _LONGEST_LINE)}*"]
    if notice.group == DIGEST:  # a line each, so that all of them find room
        return lines[0]
    lines += [sanitize.for_slack(line, _LONGEST_LINE) for line in render.details(alert, notice)]
    if alert.runbook is not None:
        lines.append(f"<{sanitize.for_slack(alert.runbook.replace('|', '%7C'), _LONGEST_LINE)}|runbook>")
    return "\n".join(lines)


def _sign(notice: Notice) -> str:
    if notice.status == "resolved":
        return _RESOLVED_SIGN
    return _SIGNS[render.worst_first(notice.alerts)[0].severity]
