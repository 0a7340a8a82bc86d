"""The template of `summary`: literal text and `{field:format}` from closed lists, substituted once, no expressions."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from watchdog.config import suggestions
from watchdog.measure.catalogue import DIMENSIONS
from watchdog.rules.language import formats

_MAX_LENGTH = 500
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# Placeholders of Go and Jinja, of shells, printf and grok. A third brace belongs to a field of this template.
_FOREIGN = re.compile(
    r"(?<!\{)\{\{-?\s*(?P<mark>[$.])?(?:labels\.|values?\.)?(?P<go>[A-Za-z_]\w*)[^{}]*\}\}(?!\})"
    r"|\$\{?(?P<shell>[A-Za-z_]\w*)\}?|%\((?P<python>\w+)\)[sdf]|%\{(?P<grok>\w+)\}",
    re.IGNORECASE,
)

# The kind of value of each field decides its formats.
_MEASURED = frozenset(("value", "threshold", "peak"))
_BESIDE_LIMIT = frozenset(("value", "peak"))  # shown with digits enough to differ from the limit
_DURATIONS = {"window": "seconds", "for": "seconds", "since": "ago"}
_TEXTS = frozenset(("severity", "rule", "host"))
SUMMARY_FIELDS = _MEASURED | _DURATIONS.keys() | _TEXTS  # and the dimensions of the rule's `by`
_BASELINE_MEASURED = frozenset(("usual", "highest"))
_BASELINE_TEXTS = frozenset(("rarity", "learnt"))
BASELINE_FIELDS = _BASELINE_MEASURED | _BASELINE_TEXTS  # of rules with a baseline


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
    """The text is not a template. `messages`: one for each mistake, in the text's order."""

    def __init__(self, *messages: str) -> None:
        """Keep the messages; the text of the exception has all of them."""
        super().__init__("; ".join(messages))
        self.messages = messages


def parse_summary(
    text: str, dimensions: Collection[str], default_format: str = "count", *, has_baseline: bool = False
) -> Template:
    """Return the template in `text`.

    `dimensions`: the rule's `by`, which are fields beside `SUMMARY_FIELDS`. `default_format`: of value, threshold and
    peak without a format. `has_baseline`: `BASELINE_FIELDS` are fields too. `{{` and `}}` are braces.

    Raises:
        TemplateError: a field or format is unknown, a single brace, a text that is too long or has several lines; all
            mistakes are in it.
    """
    if len(text) > _MAX_LENGTH:
        raise TemplateError(f"longer than {_MAX_LENGTH} characters")
    if not text.isprintable():
        raise TemplateError("must be one line without control characters")
    return parse_template(text, dimensions, default_format, has_baseline=has_baseline)


def parse_template(
    text: str, dimensions: Collection[str], default_format: str = "count", *, has_baseline: bool = False
) -> Template:
    """Return the template in `text` as `parse_summary` does, of any length and number of lines.

    Raises:
        TemplateError: a field or format is unknown, a single brace.
    """
    mistakes: list[str] = []
    parts = tuple(_parts(text, _Fields(dimensions, default_format, has_baseline), mistakes))
    if mistakes:
        raise TemplateError(*dict.fromkeys(mistakes))
    return Template(text, parts)


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of one template: dimensions, the format of numbers without one, and whether a baseline has its own."""

    dimensions: Collection[str]
    default_format: str
    has_baseline: bool


def _parts(text: str, fields: _Fields, mistakes: list[str]) -> Iterator[str | TemplateField]:
    position, literal, has_single_brace = 0, "", False
    for piece in _PIECE.finditer(text):
        literal += text[position : piece.start()]
        position = piece.end()
        if piece[0] in {"{{", "}}"}:
            literal += piece[0][0]
        elif piece[1] is None:
            if not has_single_brace:  # a second one is a consequence in most cases
                mistakes.append(f"single {piece[0]}: write {piece[0] * 2} for a brace")
            has_single_brace = True
        else:
            if literal:
                yield literal
            literal = ""
            try:
                yield _field(piece[1], fields)
            except TemplateError as error:
                mistakes += error.messages
    if literal := literal + text[position:]:
        yield literal


def _field(inside: str, fields: _Fields) -> TemplateField:
    name, colon, form = inside.partition(":")
    if name in fields.dimensions or name in _TEXTS | _BASELINE_TEXTS:
        _check_baseline_field(name, fields)
        if colon:
            raise TemplateError(f"{{{name}}} is a text and takes no format")
        return TemplateField(name)
    if name in DIMENSIONS:
        raise TemplateError(f"{{{name}}} has many values in one alert: add it to by to use it as a field")
    _check_baseline_field(name, fields)
    if name not in SUMMARY_FIELDS | _BASELINE_MEASURED:
        raise TemplateError(suggestions.unknown_name("field", name, SUMMARY_FIELDS.union(fields.dimensions)))
    if colon and form not in formats.FORMATS:
        raise TemplateError(suggestions.unknown_name("format", form, formats.FORMATS))
    if name in _DURATIONS:
        if form not in {"", "seconds", "ago"}:
            raise TemplateError(f"{{{name}}} is a time: use seconds or ago")
        return TemplateField(name, form or _DURATIONS[name])
    return TemplateField(name, form or fields.default_format)


def _check_baseline_field(name: str, fields: _Fields) -> None:
    if name in BASELINE_FIELDS and not fields.has_baseline:
        raise TemplateError(f"{{{name}}} is a field of rules with [rule.baseline]")


def foreign_placeholders(text: str) -> Iterator[str]:
    """Yield a note for each placeholder of another template language in a summary, which would be shown as it is."""
    known = SUMMARY_FIELDS | DIMENSIONS.keys()
    for piece in _FOREIGN.finditer(text):
        name = (piece["go"] or piece["shell"] or piece["python"] or piece["grok"]).casefold()
        if name in known:
            yield f"{suggestions.quote_value(piece[0])} is no field: write {{{name}}}"
        elif piece["mark"]:
            yield f"{suggestions.quote_value(piece[0])} is no field and is shown as it is"


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold: its number, and its `text` in the rule's own `format`."""

    value: float
    format: str
    text: str

    def written(self, name: str) -> str:
        """Return the limit in the format `name`, as the rule has it where that is its own."""
        return self.text if name in {"", self.format} else formats.format_exact(name, self.value)


def render_template(template: Template, values: Mapping[str, object]) -> str:
    """Return the text with each field replaced once by its value in `values`.

    `values`: numbers for value and peak (in the metric's unit), a `Limit` for threshold; seconds for window, for and
    since (the time since the condition became true); texts for the rest, an empty one shown as "-". Inserted texts are
    not parsed again.
    """
    limit = values.get("threshold")
    beside = limit.value if isinstance(limit, Limit) else math.nan
    return "".join(
        part if isinstance(part, str) else _formatted(part, values[part.name], beside) for part in template.parts
    )


def _formatted(field: TemplateField, value: object, limit: float) -> str:
    if isinstance(value, Limit):
        return value.written(field.format)
    if field.format and isinstance(value, (int, float)):
        return formats.format_number(field.format, value, limit if field.name in _BESIDE_LIMIT else math.nan)
    return str(value) or "-"
