"""HTML from parts: every text and every attribute is escaped, because only `element` makes `Markup` of them."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

from watchdog import sanitize

_VOID: Final = frozenset({"link", "meta"})  # elements of the pages that have no end tag

MAX_NAME_CHARACTERS: Final = 200
"""Of a name from the host, after escaping."""


class Markup:
    """A piece of HTML. Made by the functions of this module only; `html`: its source."""

    __slots__ = ("html",)

    def __init__(self, source: str) -> None:
        """Take `source` as it is: it must be escaped."""
        self.html = source


Child = Markup | str | None
"""A part of an element: text is escaped, None is nothing."""


def element(tag: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    `attributes`: `class_` is written "class", `aria_label` "aria-label". True is an attribute without a value, False
    and None are none.
    """
    written = "".join(map(_attribute, attributes.items()))
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{''.join(map(_source, children))}</{tag}>")


def join(parts: Iterable[Child]) -> Markup:
    """Return `parts` one after another."""
    return Markup("".join(map(_source, parts)))


def style_sheet(css: str) -> Markup:
    """Return an element `style` of our own CSS, in which nothing may be escaped."""
    return Markup(f"<style>{css}</style>")


def document(root: Markup) -> bytes:
    """Return the bytes of a document with the element `html` as its root."""
    return f"<!DOCTYPE html>\n{root.html}\n".encode()


def name(text: str) -> Markup:
    """Return a name from the host: isolated, so that its direction changes no text beside it, and cut where long."""
    return element("bdi", Markup(html.escape(sanitize.escape_unprintable(text, MAX_NAME_CHARACTERS))))


def _attribute(item: tuple[str, str | float | bool | None]) -> str:
    key, value = item
    if value is None or value is False:
        return ""
    written = key.rstrip("_").replace("_", "-")
    return f" {written}" if value is True else f' {written}="{_escape(str(value))}"'


def _source(child: Child) -> str:
    if child is None:
        return ""
    return child.html if isinstance(child, Markup) else _escape(child)


def _escape(text: str) -> str:
    is_plain = text.isprintable() and "\\" not in text
    return html.escape(text if is_plain else sanitize.escape_unprintable(text))
