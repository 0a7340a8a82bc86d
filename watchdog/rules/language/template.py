"""The template of `summary`: literal text and `{field:format}` from closed lists, substituted once, no expressions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from watchdog.config import suggestions
from watchdog.measure.catalogue import DIMENSIONS
from watchdog.rules.language import formats

_MAX_LENGTH = 500
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

# The kind of value of each field decides its formats.
_MEASURED = frozenset(("value", "threshold", "peak"))
_DURATIONS = {"window": "seconds", "for": "seconds", "since": "ago"}
_TEXTS = frozenset(("severity", "rule", "host"))
SUMMARY_FIELDS = _MEASURED | _DURATIONS.keys() | _TEXTS  # and the dimensions of the rule's `by`


@dataclass(frozen=True, slots=True)
class TemplateField:
    """`{name:format}`; an empty format is the text as it is."""

    name: str
    format: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed summary: `parts` are literal strings and fields, in order."""

    text: str
    parts: tuple[str | TemplateField, ...]


class TemplateError(ValueError):
    """The text is not a template; the message names the problem."""


def parse_summary(text: str, dimensions: Collection[str], default_format: str = "count") -> Template:
    """Return the template in `text`.

    `dimensions`: the rule's `by`, which are fields beside `SUMMARY_FIELDS`. `default_format`: of value, threshold and
    peak without a format. `{{` and `}}` are braces.

    Raises:
        TemplateError: a field or format is unknown, a single brace, a text that is too long or has several lines.
    """
    if len(text) > _MAX_LENGTH:
        raise TemplateError(f"longer than {_MAX_LENGTH} characters")
    if not text.isprintable():
        raise TemplateError("must be one line without control characters")
    return parse_template(text, dimensions, default_format)


def parse_template(text: str, dimensions: Collection[str], default_format: str = "count") -> Template:
    """Return the template in `text` as `parse_summary` does, of any length and number of lines.

    Raises:
        TemplateError: a field or format is unknown, a single brace.
    """
    return Template(text, tuple(_parts(text, dimensions, default_format)))


def _parts(text: str, dimensions: Collection[str], default_format: str) -> Iterator[str | TemplateField]:
    position, literal = 0, ""
    for piece in _PIECE.finditer(text):
        literal += text[position : piece.start()]
        position = piece.end()
        if piece[0] in {"{{", "}}"}:
            literal += piece[0][0]
        elif piece[1] is None:
            raise TemplateError(f"single {piece[0]}: write {piece[0] * 2} for a brace")
        else:
            if literal:
                yield literal
            literal = ""
            yield _field(piece[1], dimensions, default_format)
    if literal := literal + text[position:]:
        yield literal


def _field(inside: str, dimensions: Collection[str], default_format: str) -> TemplateField:
    name, colon, form = inside.partition(":")
    if name in dimensions or name in _TEXTS:
        if colon:
            raise TemplateError(f"{{{name}}} is a text and takes no format")
        return TemplateField(name)
    if name in DIMENSIONS:
        raise TemplateError(f"{{{name}}} has many values in one alert: add it to by to use it as a field")
    if name not in SUMMARY_FIELDS:
        raise TemplateError(suggestions.unknown_name("field", name, SUMMARY_FIELDS.union(dimensions)))
    if colon and form not in formats.FORMATS:
        raise TemplateError(suggestions.unknown_name("format", form, formats.FORMATS))
    if name in _DURATIONS:
        if form not in {"", "seconds", "ago"}:
            raise TemplateError(f"{{{name}}} is a time: use seconds or ago")
        return TemplateField(name, form or _DURATIONS[name])
    return TemplateField(name, form or default_format)


def render_template(template: Template, values: Mapping[str, object]) -> str:
    """Return the text with each field replaced once by its value in `values`.

    `values`: numbers for value, threshold and peak (in the metric's unit); seconds for window, for and since (the
    time since the condition became true); texts for the rest, an empty one shown as "-". Inserted texts are not
    parsed again.
    """
    return "".join(part if isinstance(part, str) else _formatted(part, values[part.name]) for part in template.parts)


def _formatted(field: TemplateField, value: object) -> str:
    if field.format and isinstance(value, (int, float)):
        return formats.FORMATS[field.format](value)
    return str(value) or "-"
