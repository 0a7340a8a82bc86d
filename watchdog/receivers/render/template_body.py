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
from watchdog.receivers.render.example import sample_pair
from watchdog.routing.notification import Notice
from watchdog.rules.language import template
from watchdog.rules.language.formats import FORMATS

# Beside value, threshold, peak, since, severity, rule, host and the rule's dimensions.
TEXTS = (
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
_NUMBERS = ("value", "threshold", "peak")
_FIELDS = {*TEXTS, *_NUMBERS, "since", "severity", "rule", "host", *DIMENSIONS}
FAILURES = (ArithmeticError, LookupError, TypeError, ValueError)
"""What a template may fail with: on it, the default form is sent."""

_LONGEST_LINE = 1_024


@dataclass(frozen=True, slots=True)
class Body:
    """A parsed template: `shape` has a `Template` wherever the configuration has a text."""

    shape: Any
    content_type: str

    @property
    def is_table(self) -> bool:
        """Tell whether it was given as a table, and so becomes JSON."""
        return not isinstance(self.shape, template.Template)

    def render(self, notice: Notice) -> bytes:
        """Return the body for `notice`.

        Raises:
            FAILURES: the template is no good for it; of a text that is to be JSON, what came out is none.
        """
        if self.is_table:
            filled = _filled(self.shape, _values(notice, lambda text: text))
            return json.dumps(filled, ensure_ascii=False, separators=(",", ":")).encode()
        if "json" not in self.content_type:
            return template.render(self.shape, _values(notice, lambda text: text)).encode()
        text = template.render(self.shape, _values(notice, _json_escaped))
        json.loads(text)
        return text.encode()


def body_from_table(table: Table) -> Body | None:
    """Read `template` and, for a text, `content_type`; None where there is none, or a problem, which has been told.

    It is tried with a firing and a resolved sample, so that what can be found wrong is found now.
    """
    given = table.value("template", None)
    content_type = table.text("content_type", "application/json" if isinstance(given, dict) else "text/plain")
    if given is None or isinstance(given, dict):
        if "content_type" in table:
            table.problem("content_type", "is for a template that is a text")
        if given is None:
            return None
    elif not isinstance(given, str):
        table.problem("template", "must be a text, or a table: write [receiver.template]")
        return None
    if not content_type.isascii() or not content_type.isprintable():
        table.problem("content_type", "is no media type")
        return None
    charset = "; charset=utf-8" if content_type.startswith("text/") and "charset" not in content_type else ""
    try:
        body = Body(_parsed(given), content_type + charset)
        for notice in sample_pair("sample"):
            body.render(notice)
    except json.JSONDecodeError as error:
        table.problem("template", f"does not make JSON: {error.msg} at line {error.lineno}")
    except FAILURES as error:
        table.problem("template", str(error))
    else:
        return body
    return None


def _parsed(shape: object) -> object:
    """Return `shape` with its texts parsed; raises `TemplateError`, or `TypeError` for what JSON does not have."""
    match shape:
        case str():
            parsed = template.parse_text(shape, (*TEXTS, *DIMENSIONS), natural="")
            for part in parsed.parts:
                if isinstance(part, template.Field) and part.name not in _FIELDS:
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
            return template.render(shape, values)
        case dict():
            return {key: _filled(value, values) for key, value in shape.items()}
        case list():
            return [_filled(value, values) for value in shape]
        case _:
            return shape


class _Number(float):
    """A number that is written in the rule's own format where the template gives none."""

    format = "count"

    def __str__(self) -> str:
        return FORMATS[self.format](float(self))


def _number(value: float, form: str) -> _Number:
    number = _Number(value)
    number.format = form
    return number


def _values(notice: Notice, escape: Callable[[str], str]) -> dict[str, object]:
    """Return what stands behind each field: of a notice of several alerts the worst one, in `details` all."""
    alerts = notification_text.worst_first(notice.alerts)
    worst = alerts[0]
    lines = [
        line
        for alert in alerts
        for line in (notification_text.alert_title(alert, notice), *notification_text.details(alert, notice))
    ]
    ended = notice.created if worst.resolved is None else worst.resolved
    texts = {
        **dict.fromkeys(DIMENSIONS, ""),
        **dict(worst.labels),
        "created": notification_text.timestamp(notice.created),
        "duration": evidence_text.duration(ended - worst.started),
        "fingerprint": worst.fingerprint,
        "fired": notification_text.timestamp(worst.fired),
        "firing": str(sum(alert.resolved is None for alert in alerts)),
        "host": notice.host,
        "notification_id": notice.id,
        "notification_reason": notice.reason,
        "reason": worst.reason,
        "receiver": notice.receiver,
        "resolved": "" if worst.resolved is None else notification_text.timestamp(worst.resolved),
        "rule": worst.rule,
        "runbook": worst.runbook or "",
        "severity": worst.severity.label,
        "started": notification_text.timestamp(worst.started),
        "status": notice.status,
        "summary": worst.summary,
        "title": notification_text.notice_title(notice),
    }
    values: dict[str, object] = {name: escape(sanitize.visible(text, _LONGEST_LINE)) for name, text in texts.items()}
    values["details"] = escape("\n".join(sanitize.visible(line, _LONGEST_LINE) for line in lines))
    values["since"] = notice.created - worst.started
    return values | {name: _number(getattr(worst, name), worst.format) for name in _NUMBERS}


def _json_escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
