"""The text of `summary`: literal text and `{field:format}` from closed lists, substituted once, no expressions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """`{name:format}`; an empty format is the field's natural one."""

    name: str
    format: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed summary: `parts` are literal strings and fields, in order."""

    text: str
    parts: tuple[str | Field, ...]
