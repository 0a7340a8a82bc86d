"""On which line of a TOML file each key stands, which parsers forget."""

from __future__ import annotations

import re
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]  # keys, and indices into arrays: ("rule", 2, "fire_above", "critical")

# One token each; only ever used on text that a TOML parser has accepted. Up to two quotes may stand before a closing
# triple quote (TOML 1.0, "String").
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
    """A table or array that is open at this point of the text; `value`: between a table's `=` and the value's end."""

    path: KeyPath
    array: bool = False
    index: int = 0
    value: KeyPath | None = None


class _LineNumberScan:
    """One pass over the tokens of a text, noting the first line of each key and array element."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._line = 1
        self._frames = [_OpenContainer(())]
        self._parts: list[str] = []  # of the key being read
        self._key_line = 1
        self._header = 0  # brackets that opened the header being read
        self._last: dict[KeyPath, int] = {}  # arrays of tables: index of the newest one

    def scan(self, text: str) -> dict[KeyPath, int]:
        for token in _TOKEN.finditer(text):
            kind = token.lastgroup
            if kind == "newline":
                self._end_of_line()
            elif kind != "comment":
                if self._header:
                    self._in_header(token[0])
                elif self._frames[-1].array:
                    self._in_array(token[0])
                elif self._frames[-1].value is not None:
                    self._in_value(token[0])
                else:
                    self._in_key(token[0])
                self._line += token[0].count("\n")
        return self.lines

    def _end_of_line(self) -> None:
        self._line += 1
        if len(self._frames) == 1:
            self._frames[0].value = None

    def _note(self, path: KeyPath, line: int) -> None:
        self.lines.setdefault(path, line)

    def _part(self, token: str) -> None:
        if not self._parts:
            self._key_line = self._line
        self._parts.append(_key(token))

    def _in_header(self, token: str) -> None:
        if token == "[":
            self._header += 1
        elif token == "]":
            if self._parts:
                self._open_header()
            self._header -= 1
        elif token != ".":
            self._part(token)

    def _open_header(self) -> None:
        path: KeyPath = ()
        for part in self._parts[:-1]:
            path += (part,)
            self._note(path, self._key_line)
            if path in self._last:
                path += (self._last[path],)
        path += (self._parts[-1],)
        self._note(path, self._key_line)
        if self._header == _ARRAY_HEADER:
            self._last[path] = self._last.get(path, -1) + 1
            path += (self._last[path],)
            self._note(path, self._key_line)
        self._frames[0].path = path
        self._parts = []

    def _in_key(self, token: str) -> None:
        frame = self._frames[-1]
        if token == "=":
            path = frame.path
            for part in self._parts:
                path += (part,)
                self._note(path, self._key_line)
            frame.value = path
            self._parts = []
        elif token == "[":
            self._header = 1
        elif token == "}":
            self._frames.pop()
        elif token not in {".", ","}:
            self._part(token)

    def _in_value(self, token: str) -> None:
        frame = self._frames[-1]
        if token in {"[", "{"}:
            self._frames.append(_OpenContainer(frame.value or (), array=token == "["))
        elif token == ",":
            frame.value = None
        elif token == "}":
            self._frames.pop()

    def _in_array(self, token: str) -> None:
        frame = self._frames[-1]
        if token == "]":
            self._frames.pop()
        elif token == ",":
            frame.index += 1
        else:
            path = (*frame.path, frame.index)
            self._note(path, self._line)
            if token in {"[", "{"}:
                self._frames.append(_OpenContainer(path, array=token == "["))


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
