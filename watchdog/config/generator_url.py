"""`generator_url`: a template for the address of a dashboard that shows an alert, Prometheus' generatorURL."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from watchdog.config.document import Table
from watchdog.config.labels import RESERVED
from watchdog.config.suggestions import is_near, quote_value, unknown_name

OWN_FIELDS: Final = frozenset(("rule", "severity", "host", "fingerprint"))
"""Fields beside the labels of the alert."""
MAX_URL_CHARACTERS: Final = 2_000

_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)


def read_generator_url(root: Table, labels: Collection[str]) -> str:
    """Return the template at the top of the settings, "" without one; problems are noted. `labels`: of the settings."""
    template = root.text("generator_url", "")
    if not template or root.has_problem("generator_url"):
        return ""
    for message in _problems(template, labels):
        root.add_problem("generator_url", message)
    return template


def _problems(template: str, labels: Collection[str]) -> Iterator[str]:
    known = {*OWN_FIELDS, *RESERVED, *labels}
    for name in _FIELD.findall(template):
        # A name that is no misspelled one can be a label of a rule.
        if not _NAME.fullmatch(name) or (name not in known and is_near(name, known)):
            yield unknown_name("field", name, known)
    if "{" in _FIELD.sub("", template) or "}" in _FIELD.sub("", template):
        yield "has a brace without its partner: a field is {process}"
    filled = _FIELD.sub("x", template)
    if not re.match(r"https?://[^/\s]", filled, re.IGNORECASE) or not filled.isprintable() or " " in filled:
        yield f"must be an http or https address, not {quote_value(template)}"


def fill_generator_url(template: str, values: Mapping[str, str]) -> str:
    """Return the address with `values` in the fields of `template`, percent-encoded; a missing value is empty.

    "" if it would be longer than `MAX_URL_CHARACTERS`.
    """

    def fill(field: re.Match[str]) -> str:
        return urllib.parse.quote(values.get(field[1], "").encode("utf-8", "surrogateescape"), safe="")

    url = _FIELD.sub(fill, template)
    return url if len(url) <= MAX_URL_CHARACTERS else ""
