"""Line numbers of the keys in a TOML text; TOML parsers do not report them."""

from __future__ import annotations

import re
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]  # keys, and indices into arrays: ("rule", 2, "fire_above", "critical")

# One token each. The text has been accepted by a TOML parser. Up to two quotes may precede a closing triple quote
# (TOML 1.0, "String").
_TOKEN = re.compile(
    r"""
    (?P<newline>\n)
  | (?P<comment>\#[^\n]*)
  | (?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5}(?!\") | '{3}.*?'{3,5}(?!') | "(?:\\.|[^"\\])*" | '[^']*')
  | (?P<mark>[\[\]{}=,.])
  | (?P<bare>[^\s\[\]{}=,.\#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)
_ARRAY_HEADER = 2  # brackets of `[[rule]]`
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


@dataclass(slots=True)
class _OpenContainer:
    """A table or array that is open at the current token.

    `value`: the path of the key while its value is read, None between values.
    """

    path: KeyPath
    array: bool = False
    index: int = 0
    value: KeyPath | None = None


class _LineNumberScan:
    """One pass over the tokens of a text that records the first line of each key and array element."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._line = 1
        self._open_containers = [_OpenContainer(())]
        self._parts: list[str] = []  # parts of the dotted key that is being read
        self._key_line = 1
        self._header = 0  # number of brackets that opened the current table header, 0 outside of headers
        self._last_index: dict[KeyPath, int] = {}  # index of the newest table of each array of tables

    def scan(self, text: str) -> dict[KeyPath, int]:
        for token in _TOKEN.finditer(text):
            kind = token.lastgroup
            if kind == "newline":
                self._finish_line()
            elif kind != "comment":
                if self._header:
                    self._read_header(token[0])
                elif self._open_containers[-1].array:
                    self._read_array(token[0])
                elif self._open_containers[-1].value is not None:
                    self._read_value(token[0])
                else:
                    self._read_key(token[0])
                self._line += token[0].count("\n")
        return self.lines

    def _finish_line(self) -> None:
        self._line += 1
        if len(self._open_containers) == 1:
            self._open_containers[0].value = None

    def _record(self, path: KeyPath, line: int) -> None:
        self.lines.setdefault(path, line)

    def _add_part(self, token: str) -> None:
        if not self._parts:
            self._key_line = self._line
        self._parts.append(_key(token))

    def _read_header(self, token: str) -> None:
        if token == "[":
            self._header += 1
        elif token == "]":
            if self._parts:
                self._finish_header()
            self._header -= 1
        elif token != ".":
            self._add_part(token)

    def _finish_header(self) -> None:
        path: KeyPath = ()
        for part in self._parts[:-1]:
            path += (part,)
            self._record(path, self._key_line)
            if path in self._last_index:
                path += (self._last_index[path],)
        path += (self._parts[-1],)
        self._record(path, self._key_line)
        if self._header == _ARRAY_HEADER:
            self._last_index[path] = self._last_index.get(path, -1) + 1
            path += (self._last_index[path],)
            self._record(path, self._key_line)
        self._open_containers[0].path = path
        self._parts = []

    def _read_key(self, token: str) -> None:
        container = self._open_containers[-1]
        if token == "=":
            path = container.path
            for part in self._parts:
                path += (part,)
                self._record(path, self._key_line)
            container.value = path
            self._parts = []
        elif token == "[":
            self._header = 1
        elif token == "}":
            self._open_containers.pop()
        elif token not in {".", ","}:
            self._add_part(token)

    def _read_value(self, token: str) -> None:
        container = self._open_containers[-1]
        if token in {"[", "{"}:
            self._open_containers.append(_OpenContainer(container.value or (), array=token == "["))
        elif token == ",":
            container.value = None
        elif token == "}":
            self._open_containers.pop()

    def _read_array(self, token: str) -> None:
        container = self._open_containers[-1]
        if token == "]":
            self._open_containers.pop()
        elif token == ",":
            container.index += 1
        else:
            path = (*container.path, container.index)
            self._record(path, self._line)
            if token in {"[", "{"}:
                self._open_containers.append(_OpenContainer(path, array=token == "["))


def _key(token: str) -> str:
    if token.startswith("'"):
        return token[1:-1]
    if not token.startswith('"'):
        return token
    return _ESCAPE.sub(_unescape, token[1:-1])


def _unescape(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    return chr(int(code, 16)) if code else _ESCAPED.get(escape[4], escape[4])


def find_line_numbers(text: str) -> dict[KeyPath, int]:
    """Return the line (from 1) of every key, table and array element of `text`, which must be valid TOML."""
    return _LineNumberScan().scan(text)
