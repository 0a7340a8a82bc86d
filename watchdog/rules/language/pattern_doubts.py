"""Patterns of names that are possible and most likely mean something else: notes for the author of a `where`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from watchdog.config.suggestions import quote_value
from watchdog.measure.catalogue import CONTAINER_DIGITS, UNATTRIBUTED, UNIT_ENDINGS, Dimension, DimensionKind

_GLOB_TOKEN = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)  # as fnmatch reads a pattern
_HEX = frozenset("0123456789abcdef")
_NOMAD = re.compile(r"[0-9a-f]{8}\.")
_SEPARATORS = re.compile(r"\s*[|,]\s*|\s+or\s+")
_REGULAR_EXPRESSION = re.compile(r"\^|\.[*+]|\\[dws.]|\([?]")  # at the start of a pattern


def pattern_doubts(dimension: Dimension, pattern: str, other_conditions: Collection[str]) -> Iterator[str]:
    """Yield a note for each sign that `pattern`, given without its `!`, is not meant as it is written.

    `other_conditions`: the other dimensions of the same `where`.
    """
    if dimension.kind is not DimensionKind.NAME or pattern == UNATTRIBUTED:
        return
    quoted = quote_value(pattern)
    if pattern != pattern.strip():
        yield f"{quoted} begins or ends with a blank, which is part of the name: use {quote_value(pattern.strip())}"
    if pattern.startswith("!"):
        yield f'{quoted} begins with a second "!", which is part of the name'
    parts = [part for part in _SEPARATORS.split(pattern) if part]
    if len(parts) > 1:
        wanted = ", ".join(map(quote_value, parts))
        yield f"{quoted} is one name: for any of several write [{wanted}]"
    elif _REGULAR_EXPRESSION.match(pattern) or (pattern.endswith("$") and dimension.name != "user"):
        yield f"{quoted} looks like a regular expression, but is a glob: * is any text, ? any character"
    elif dimension.name == "process" and pattern.startswith("/"):
        yield f"{quoted} is a path, but process is a name: use exe = {quote_value(pattern.rpartition('/')[2])}"
    elif dimension.name == "process" and pattern.endswith(UNIT_ENDINGS):
        yield f"{quoted} is named like a unit, but process is the name of a program: use unit = {quoted}"
    elif dimension.name == "container" and not _may_be_id(pattern.rpartition("/")[2]):
        yield (
            f"{quoted} is no id: containers of Docker, containerd, CRI-O and Podman are the first {CONTAINER_DIGITS}"
            " digits of their id; only LXC, Incus, nspawn, Proxmox and Nomad give a name"
        )
    elif dimension.name == "user" and pattern.isdecimal() and "container" not in other_conditions:
        yield f"{quoted} matches users of containers and users without a name: users of the host are names"


def _may_be_id(pattern: str) -> bool:
    """Return whether the kept digits of a container's id, or no container, can match `pattern`."""
    if not pattern or _NOMAD.match(pattern):
        return True
    tokens = _GLOB_TOKEN.findall(pattern)
    literal = [token for token in tokens if len(token) == 1 and token not in "*?"]
    single = sum(not token.startswith("*") for token in tokens)
    fits = single == CONTAINER_DIGITS if single == len(tokens) else single <= CONTAINER_DIGITS
    return fits and _HEX.issuperset(literal)
