"""Named lists: `[lists]` tables of rule files, for values that several rules share: `"@internal"` in a `where`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from watchdog.config import suggestions
from watchdog.config.document import Document, Table
from watchdog.config.suggestions import quote_value

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)


class NamedLists:
    """The lists of all rule files that were read so far, by name.

    `is_complete`: False while single files are checked: a list can be in another file then.
    """

    def __init__(self, *, is_complete: bool = True) -> None:
        """Start without lists."""
        self.is_complete = is_complete
        self._elements: dict[str, tuple[object, ...]] = {}
        self._locations: dict[str, str] = {}
        self._read: set[int] = set()

    def read(self, document: Document) -> None:
        """Add the lists of a file, once; problems are noted in it."""
        if id(document) in self._read:
            return
        self._read.add(id(document))
        table = document.root.table("lists")
        for name in table:
            elements = self._read_list(table, name)
            if name in self._locations and not table.has_problem(name):
                table.add_problem(name, f"this list is already at {self._locations[name]}")
            self._locations.setdefault(name, f"{document.file}:{document.line(('lists', name))}")
            self._elements.setdefault(name, elements)

    def expand(self, where: Table, key: str, elements: Sequence[object]) -> Iterator[tuple[int, object]]:
        """Yield (index, element) of `elements`, with those of a list in the place of its name.

        `where`, `key`: position of the elements, for problems. `"!@name"` excludes each element of the list.
        """
        for index, element in enumerate(elements):
            if not isinstance(element, str) or not element.removeprefix("!").startswith("@"):
                yield index, element
                continue
            exclusion, _, name = element.partition("@")
            if name in self._elements:
                yield from ((index, f"{exclusion}{one}" if exclusion else one) for one in self._elements[name])
            elif self.is_complete:
                position = index if isinstance(where.data[key], list) else None
                where.add_problem(key, suggestions.unknown_name("list", name, self._elements), index=position)
            else:
                near = (
                    f"; {suggestions.unknown_name('list', name, self._elements)}"
                    if suggestions.is_near(name, self._elements)
                    else ""
                )
                where.add_note(key, f"not checked: the list {quote_value(name)} is in another file{near}")

    def _read_list(self, table: Table, name: str) -> tuple[object, ...]:
        elements = table.value(name)
        if not _NAME.fullmatch(name):
            table.add_problem(name, "use a to z, 0 to 9, _ and -, beginning with a letter")
        if not isinstance(elements, list) or not elements:
            is_scalar = isinstance(elements, str | int) and not isinstance(elements, bool)
            remedy = f": write [{quote_value(elements)}]" if is_scalar else ", not empty"
            table.add_problem(name, f"must be an array of values{remedy}")
            return ()
        for index, element in enumerate(elements):
            if isinstance(element, bool) or not isinstance(element, str | int) or element == "":
                table.add_problem(name, "must hold texts or numbers only", index=index)
            elif isinstance(element, str) and element[0] == "@":
                table.add_problem(
                    name, f"{quote_value(element)}: a list cannot hold another one; name both in `where`", index=index
                )
            elif isinstance(element, str) and element[0] == "!":
                table.add_problem(
                    name, f'{quote_value(element)}: write "!@{name}" where the list is used instead', index=index
                )
        return tuple(one for one in elements if not (isinstance(one, str) and one[:1] in {"", "!", "@"}))
