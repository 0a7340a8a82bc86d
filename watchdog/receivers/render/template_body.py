"""A user's own webhook body: a text, or a table of texts, with fields of the alert in braces.

Fields and formats are those of a rule's summary and some more. Each field is replaced once; there are no expressions.
In a table, which becomes JSON, and in a JSON text, values are escaped and cannot end the string around them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.config.document import Table
from watchdog.measure.catalogue import DIMENSIONS
from watchdog.receivers.render import evidence_text, notification_text
from watchdog.receivers.render.alert_facts import alert_facts
from watchdog.receivers.render.example import example_notifications
from watchdog.routing.notification import Notification
from watchdog.rules.language import template
from watchdog.rules.language.formats import format_number

# In addition: value, threshold, peak, since, severity, rule, host and the rule's dimensions.
TEXT_FIELDS = (
    "created",
    "details",
    "duration",
    "fingerprint",
    "fired",
    "firing",
    "labels",
    "notification_id",
    "notification_reason",
    "reason",
    "receiver",
    "resolved",
    "runbook",
    "started",
    "status",
    "summary",
    "title",
)
_FACTS = ("fingerprint", "notification_id", "resolved", "rule", "severity", "started")  # of `alert_facts`
_NUMBERS = ("value", "threshold", "peak")
_FIELDS = {*TEXT_FIELDS, *_NUMBERS, "since", "severity", "rule", "host", *DIMENSIONS}
TEMPLATE_ERRORS = (ArithmeticError, LookupError, TypeError, ValueError)
"""Exceptions of a failing template; the default form is sent instead."""

_MAX_LINE_LENGTH = 1_024


@dataclass(frozen=True, slots=True)
class TemplateBody:
    """A parsed template: `template` has a `Template` for each text of the configuration."""

    template: Any
    content_type: str

    @property
    def is_table(self) -> bool:
        """Return whether the template is a table, which becomes JSON."""
        return not isinstance(self.template, template.Template)

    def render(self, notification: Notification) -> bytes:
        """Return the body for `notification`.

        Raises:
            TEMPLATE_ERRORS: the template does not fit the notification, or a JSON text did not become JSON.
        """
        if self.is_table:
            document = _fill(self.template, _values(notification, lambda text: text))
            return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        if "json" not in self.content_type:
            return template.render_template(self.template, _values(notification, lambda text: text)).encode()
        text = template.render_template(self.template, _values(notification, _json_escaped))
        json.loads(text)
        return text.encode()


def parse_template_body(table: Table) -> TemplateBody | None:
    """Read `template` and, for a text, `content_type`; None if it is missing or has a problem.

    The template is tried with a firing and a resolved example, so that errors are found when the file is read.
    """
    given = table.value("template", None)
    content_type = table.text("content_type", "application/json" if isinstance(given, dict) else "text/plain")
    if given is None or isinstance(given, dict):
        if "content_type" in table:
            table.add_problem("content_type", "applies only to a template that is a text")
        if given is None:
            return None
    elif not isinstance(given, str):
        table.add_problem("template", "must be a text, or a table ([receiver.template])")
        return None
    if not content_type.isascii() or not content_type.isprintable():
        table.add_problem("content_type", "must be a media type, such as text/plain")
        return None
    charset = "; charset=utf-8" if content_type.startswith("text/") and "charset" not in content_type else ""
    try:
        body = TemplateBody(_parsed(given), content_type + charset)
        for notification in example_notifications("example"):
            body.render(notification)
    except json.JSONDecodeError as error:
        table.add_problem("template", f"does not make JSON: {error.msg} at line {error.lineno}")
    except TEMPLATE_ERRORS as error:
        table.add_problem("template", str(error))
    else:
        return body
    return None


def _parsed(shape: object) -> object:
    """Return `shape` with its texts parsed.

    Raises:
        TemplateError, TypeError: a text is not a valid template, or a value has no JSON form.
    """
    match shape:
        case str():
            parsed = template.parse_template(shape, (*TEXT_FIELDS, *DIMENSIONS), default_format="")
            for part in parsed.parts:
                if isinstance(part, template.TemplateField) and part.name not in _FIELDS:
                    raise template.TemplateError(f"{{{part.name}}} is not available when a notification is sent")
            return parsed
        case dict():
            return {key: _parsed(value) for key, value in shape.items()}
        case list():
            return [_parsed(value) for value in shape]
        case bool() | int() | float():
            return shape
        case _:
            raise TypeError("JSON has no dates and times: use a text")


def _fill(shape: Any, values: Mapping[str, object]) -> object:
    match shape:
        case template.Template():
            return template.render_template(shape, values)
        case dict():
            return {key: _fill(value, values) for key, value in shape.items()}
        case list():
            return [_fill(value, values) for value in shape]
        case _:
            return shape


class _FormattedNumber(float):
    """A number with the rule's format, used if the template gives none."""

    format = "count"
    limit = math.nan

    def __str__(self) -> str:
        return format_number(self.format, float(self), self.limit)


def _number(value: float, alert: Alert) -> _FormattedNumber:
    number = _FormattedNumber(value)
    number.format, number.limit = alert.format, alert.threshold
    return number


def _values(notification: Notification, escape: Callable[[str], str]) -> dict[str, object]:
    """Return the values of the fields: those of the worst alert; `details` covers all alerts."""
    alerts = notification_text.worst_first(notification.alerts)
    worst = alerts[0]
    lines = [
        line
        for alert in alerts
        for line in (
            notification_text.alert_title(alert, notification),
            *notification_text.detail_lines(alert, notification),
        )
    ]
    facts = alert_facts(worst, notification)
    texts = {
        **dict.fromkeys(DIMENSIONS, ""),
        **dict(worst.labels),
        **{name: facts.get(name, "") for name in _FACTS},
        "created": notification_text.rfc3339(notification.created),
        "duration": evidence_text.duration_text(notification_text.seconds_lasted(worst, notification)),
        "fired": notification_text.rfc3339(worst.fired),
        "firing": str(sum(alert.resolved is None for alert in alerts)),
        "host": notification.host,
        "labels": ", ".join(f"{name}={value}" for name, value in worst.all_labels),
        "notification_reason": notification.reason_text,
        "reason": worst.reason,
        "receiver": notification.receiver,
        "runbook": worst.runbook or "",
        "status": notification.status,
        "summary": worst.summary,
        "title": notification_text.notification_title(notification),
    }
    values: dict[str, object] = {
        name: escape(sanitize.escape_unprintable(text, _MAX_LINE_LENGTH)) for name, text in texts.items()
    }
    values["details"] = escape("\n".join(sanitize.escape_unprintable(line, _MAX_LINE_LENGTH) for line in lines))
    values["since"] = max(0.0, notification.created - worst.started)
    return values | {"value": _number(worst.value, worst), "peak": _number(worst.peak, worst), "threshold": worst.limit}


def _json_escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
