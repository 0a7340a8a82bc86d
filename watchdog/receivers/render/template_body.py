"""The body of a webhook as its owner writes it: a text or a table of texts, with fields of the alert in braces.

The fields and their formats are those of a rule's summary, and some more; they are put in once, no expressions. In a
table, which becomes JSON, and in a text that is JSON, what is put in cannot end the string that it stands in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from watchdog import sanitize
from watchdog.config.document import Table
from watchdog.measure.catalogue import DIMENSIONS
from watchdog.receivers.render import evidence_text, notification_text
from watchdog.receivers.render.alert_facts import alert_facts
from watchdog.receivers.render.example import example_notifications
from watchdog.routing.notification import Notification
from watchdog.rules.language import template
from watchdog.rules.language.formats import FORMATS

# Beside value, threshold, peak, since, severity, rule, host and the rule's dimensions.
TEXT_FIELDS = (
    "created",
    "details",
    "duration",
    "fingerprint",
    "fired",
    "firing",
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
"""What a template may fail with: on it, the default form is sent."""

_LONGEST_LINE = 1_024


@dataclass(frozen=True, slots=True)
class TemplateBody:
    """A parsed template: `shape` has a `Template` wherever the configuration has a text."""

    template: Any
    content_type: str

    @property
    def is_table(self) -> bool:
        """Tell whether it was given as a table, and so becomes JSON."""
        return not isinstance(self.template, template.Template)

    def render(self, notification: Notification) -> bytes:
        """Return the body for `notification`.

        Raises:
            FAILURES: the template is no good for it; of a text that is to be JSON, what came out is none.
        """
        if self.is_table:
            filled = _filled(self.template, _values(notification, lambda text: text))
            return json.dumps(filled, ensure_ascii=False, separators=(",", ":")).encode()
        if "json" not in self.content_type:
            return template.render_template(self.template, _values(notification, lambda text: text)).encode()
        text = template.render_template(self.template, _values(notification, _json_escaped))
        json.loads(text)
        return text.encode()


def parse_template_body(table: Table) -> TemplateBody | None:
    """Read `template` and, for a text, `content_type`; None where there is none, or a problem, which has been told.

    It is tried with a firing and a resolved sample, so that what can be found wrong is found now.
    """
    given = table.value("template", None)
    content_type = table.text("content_type", "application/json" if isinstance(given, dict) else "text/plain")
    if given is None or isinstance(given, dict):
        if "content_type" in table:
            table.add_problem("content_type", "is for a template that is a text")
        if given is None:
            return None
    elif not isinstance(given, str):
        table.add_problem("template", "must be a text, or a table: write [receiver.template]")
        return None
    if not content_type.isascii() or not content_type.isprintable():
        table.add_problem("content_type", "is no media type")
        return None
    charset = "; charset=utf-8" if content_type.startswith("text/") and "charset" not in content_type else ""
    try:
        body = TemplateBody(_parsed(given), content_type + charset)
        for notification in example_notifications("sample"):
            body.render(notification)
    except json.JSONDecodeError as error:
        table.add_problem("template", f"does not make JSON: {error.msg} at line {error.lineno}")
    except TEMPLATE_ERRORS as error:
        table.add_problem("template", str(error))
    else:
        return body
    return None


def _parsed(shape: object) -> object:
    """Return `shape` with its texts parsed; raises `TemplateError`, or `TypeError` for what JSON does not have."""
    match shape:
        case str():
            parsed = template.parse_template(shape, (*TEXT_FIELDS, *DIMENSIONS), natural="")
            for part in parsed.parts:
                if isinstance(part, template.TemplateField) and part.name not in _FIELDS:
                    raise template.TemplateError(f"{{{part.name}}} is not known any more when a notice is sent")
            return parsed
        case dict():
            return {key: _parsed(value) for key, value in shape.items()}
        case list():
            return [_parsed(value) for value in shape]
        case bool() | int() | float():
            return shape
        case _:
            raise TypeError("JSON has no dates and times: write a text")


def _filled(shape: Any, values: Mapping[str, object]) -> object:
    match shape:
        case template.Template():
            return template.render_template(shape, values)
        case dict():
            return {key: _filled(value, values) for key, value in shape.items()}
        case list():
            return [_filled(value, values) for value in shape]
        case _:
            return shape


class _FormattedNumber(float):
    """A number that is written in the rule's own format where the template gives none."""

    format = "count"

    def __str__(self) -> str:
        return FORMATS[self.format](float(self))


def _number(value: float, form: str) -> _FormattedNumber:
    number = _FormattedNumber(value)
    number.format = form
    return number


def _values(notification: Notification, escape: Callable[[str], str]) -> dict[str, object]:
    """Return what stands behind each field: of a notice of several alerts the worst one, in `details` all."""
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
    ended = notification.created if worst.resolved is None else worst.resolved
    texts = {
        **dict.fromkeys(DIMENSIONS, ""),
        **dict(worst.labels),
        **{name: facts.get(name, "") for name in _FACTS},
        "created": notification_text.rfc3339(notification.created),
        "duration": evidence_text.duration_text(ended - worst.started),
        "fired": notification_text.rfc3339(worst.fired),
        "firing": str(sum(alert.resolved is None for alert in alerts)),
        "host": notification.host,
        "notification_reason": notification.reason_text,
        "reason": worst.reason,
        "receiver": notification.receiver,
        "runbook": worst.runbook or "",
        "status": notification.status,
        "summary": worst.summary,
        "title": notification_text.notification_title(notification),
    }
    values: dict[str, object] = {
        name: escape(sanitize.escape_unprintable(text, _LONGEST_LINE)) for name, text in texts.items()
    }
    values["details"] = escape("\n".join(sanitize.escape_unprintable(line, _LONGEST_LINE) for line in lines))
    values["since"] = notification.created - worst.started
    return values | {name: _number(getattr(worst, name), worst.format) for name in _NUMBERS}


def _json_escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
