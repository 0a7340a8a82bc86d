"""The argument parser of all commands: help that fits 80 columns, and no option that is dropped without a word."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any


class ArgumentParser(argparse.ArgumentParser):
    """A parser that refuses a second value for an option with one value, and wraps its texts at the terminal's width.

    The parsers of subcommands are of this class too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Accept the arguments of `argparse.ArgumentParser`."""
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(*args, **kwargs)
        self.register("action", None, _StoreOnce)
        self.register("action", "store", _StoreOnce)


class _StoreOnce(argparse.Action):
    """Stores the value of an option; a second one is an error, because one of the two would have no effect."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - the signature of argparse
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given: set[str] = namespace.__dict__.setdefault("_given", set())
        if option_string is not None and self.dest in given:
            raise argparse.ArgumentError(self, "given twice: give it once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps each paragraph of a description; indented paragraphs keep their lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_fill(paragraph, width, indent) for paragraph in text.split("\n\n"))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)  # a path stays whole


def _fill(paragraph: str, width: int, indent: str) -> str:
    head, *rest = paragraph.splitlines()
    if any(line.startswith(" ") for line in rest):
        return "\n".join(indent + line for line in (head, *rest)) + "\n"
    lines = textwrap.wrap(paragraph, width, break_on_hyphens=False, break_long_words=False)
    return "\n".join(indent + line for line in lines) + "\n"
