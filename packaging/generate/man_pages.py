"""Man pages: bpf-watchdog(1) from the argument parsers, those of the files, in section 5, from the schemas.

usage: man_pages.py FOLDER: writes FOLDER/man1/bpf-watchdog.1 and so on
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from parsers import CommandSyntax, all_commands, help_text, takes_value, value_name  # noqa: E402

from watchdog import __version__  # noqa: E402
from watchdog.cli.commands import COMMANDS, overview_parser  # noqa: E402

SCHEMAS = Path(__file__).parents[2] / "watchdog" / "cli" / "schemas"
_RULE_EXAMPLE = """\
[[rule]]
id = "outbound-storm"
summary = "{process} opens connections at {value} (limit {threshold})"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process", "unit"]
where = { direction = "out" }
fire_above = { warning = 100, critical = 500 }
receivers = ["oncall"]
"""
_SETTINGS_EXAMPLE = """\
[routing]
default = ["oncall"]

[[receiver]]
name = "oncall"
type = "slack"
webhook_url_file = "/etc/bpf-watchdog/secrets/slack"
"""
_FILES = (
    ("/etc/bpf-watchdog/watchdog.toml", "settings, see bpf-watchdog.toml(5)"),
    ("/etc/bpf-watchdog/rules.d/*.toml", "rules, see bpf-watchdog-rules(5)"),
    ("/var/lib/bpf-watchdog", "state: alerts, notifications, silences"),
    ("/run/bpf-watchdog/control.sock", "control socket of the daemon"),
)


def _escape(text: str) -> str:
    """Return `text` for a line of roff."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...").replace("`", "")
    return r"\&" + escaped if escaped.startswith((".", "'")) else escaped


def _date() -> str:
    """Return the day of the page: that of $SOURCE_DATE_EPOCH in a build (reproducible-builds.org), else today."""
    at = dt.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())), dt.UTC)
    return at.strftime("%Y-%m-%d")


def _head(page: str, section: int, purpose: str) -> str:
    name = _escape(page)
    return (
        f'.TH {page.upper()} {section} "{_date()}" "bpf\\-watchdog {__version__}" "bpf\\-watchdog"\n'
        f".SH NAME\n{name} \\- {_escape(purpose)}\n"
    )


def _example(text: str) -> str:
    return ".PP\n.nf\n.RS\n" + "\n".join(map(_escape, text.rstrip("\n").splitlines())) + "\n.RE\n.fi\n"


def _paragraphs(text: str) -> str:
    """Return paragraphs as roff; lines that are indented stay as they are."""
    parts = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        indented = [line for line in lines if line.startswith(" ")]
        plain = " ".join(line for line in lines if not line.startswith(" "))
        parts += [f".PP\n{_escape(plain)}\n"] if plain else []
        parts += [_example("\n".join(line[2:] for line in indented))] if indented else []
    return "".join(parts)


# ------------------------------------------------------------------------------------------------------------ section 1


def commands_page() -> str:
    """Return bpf-watchdog(1)."""
    commands = list(all_commands())
    parts = [
        _head("bpf-watchdog", 1, "watch every TCP connection of this host from inside the kernel"),
        ".SH SYNOPSIS\n.B bpf\\-watchdog\n.I COMMAND\n[\\fIOPTION\\fR...]\n",
        ".SH DESCRIPTION\n" + _paragraphs(overview_parser().description or ""),
        ".SH COMMANDS\n",
    ]
    parts += (f".TP\n.B {_escape(name)}\n{_escape(command.summary)}\n" for name, command in COMMANDS.items())
    for command in commands:
        title = " ".join(command.words).upper() if command.words else "GENERAL OPTIONS"
        parts.append(f'.SH "{_escape(title)}"\n{"".join(_command(command))}')
    _, _, codes = (overview_parser().epilog or "").partition("exit codes: ")
    parts.append('.SH "EXIT STATUS"\n')
    for code, meaning in re.findall(r"(\d+) (.+?)(?:, (?=\d)|$)", " ".join(codes.split())):
        parts.append(f".TP\n.B {code}\n{_escape(meaning)}\n")
    parts.append(".SH FILES\n" + "".join(f".TP\n.I {_escape(path)}\n{_escape(text)}\n" for path, text in _FILES))
    parts.append('.SH "SEE ALSO"\n.BR bpf\\-watchdog.toml (5),\n.BR bpf\\-watchdog\\-rules (5)\n')
    return "".join(parts)


def _command(command: CommandSyntax) -> Iterator[str]:
    if command.words:
        required = "".join(f" {_option(option)}" for option in command.options if option.required)
        actions = "|".join(f"\\fB{_escape(name)}\\fR" for name in command.choices)
        names = "".join(map(_argument, command.arguments))
        rest = f"{required} [\\fIOPTION\\fR...]{f' [{actions}]' if actions else ''}"
        yield f".PP\n\\fBbpf\\-watchdog {_escape(' '.join(command.words))}\\fR{rest}{names}\n"
        yield _paragraphs(command.description)
    for argument in command.arguments:
        yield f".TP\n.I {_escape(value_name(argument))}\n{_escape(help_text(argument))}{_choices(argument)}\n"
    for option in command.options:
        yield f".TP\n{_option(option)}\n{_escape(help_text(option))}{_choices(option)}\n"


def _argument(argument: argparse.Action) -> str:
    """Return an argument of a synopsis: "[NAME=VALUE...]"."""
    name = f"\\fI{_escape(value_name(argument))}\\fR"
    more = "..." if argument.nargs in {"*", "+"} else ""
    return f" [{name}{more}]" if argument.nargs in {"*", "?"} else f" {name}{more}"


def _choices(action: argparse.Action) -> str:
    """Return the values that are possible, unless the help has them."""
    values = [] if action.choices is None else [*map(str, action.choices)]
    has_each = all(value in help_text(action) for value in values)
    return "" if has_each else _escape(f". One of: {', '.join(values)}.")


def _option(option: argparse.Action) -> str:
    value = f" \\fI{_escape(value_name(option))}\\fR" if takes_value(option) else ""
    return ", ".join(f"\\fB{_escape(name)}\\fR{value}" for name in option.option_strings)


# ------------------------------------------------------------------------------------------------------------ section 5


def settings_page() -> str:
    """Return bpf-watchdog.toml(5)."""
    schema = _schema("settings")
    parts = [
        _head("bpf-watchdog.toml", 5, "settings of bpf-watchdog"),
        ".SH DESCRIPTION\n",
        _paragraphs(
            "/etc/bpf-watchdog/watchdog.toml is a TOML file with the settings of the daemon: receivers, routes,"
            " sampling. It is optional. `bpf-watchdog check` finds mistakes, `bpf-watchdog reload` puts a change into"
            " force.\n\nA secret has four keys, of which one is given: KEY the secret, KEY_file the file with it,"
            " KEY_env an environment variable, KEY_credential a systemd credential."
        ),
        _example(_SETTINGS_EXAMPLE),
        ".SH KEYS\n",
        *_keys(schema["properties"]),
    ]
    for name, node in schema["properties"].items():
        table = node.get("items", node)
        if name == "receiver":
            continue
        if "properties" in table:
            parts.append(f'.SH "{_escape(_header(name, node))}"\n{"".join(_keys(table["properties"]))}')
    receivers = schema["properties"]["receiver"]["items"]["oneOf"]
    common = set.intersection(*(set(one["properties"]) for one in receivers))
    first = receivers[0]["properties"]
    parts.append('.SH "[[receiver]]"\n' + "".join(_keys({key: first[key] for key in first if key in common})))
    for one in receivers:
        own = {key: value for key, value in one["properties"].items() if key not in common}
        keys = "".join(_keys(own)) or ".PP\nNo further keys.\n"
        parts.append(f'.SH "[[receiver]] of type {_escape(one["title"])}"\n{keys}')
    parts += [".SH CONDITIONS\n.PP\nKeys of where, source and target.\n", *_keys(schema["definitions"])]
    parts.append('.SH "SEE ALSO"\n.BR bpf\\-watchdog (1),\n.BR bpf\\-watchdog\\-rules (5)\n')
    return "".join(parts)


def rules_page() -> str:
    """Return bpf-watchdog-rules(5)."""
    schema = _schema("rules")
    properties = schema["properties"]
    rule = properties["rule"]["items"]["properties"]
    parts = [
        _head("bpf-watchdog-rules", 5, "rule files of bpf-watchdog"),
        ".SH DESCRIPTION\n",
        _paragraphs(
            "The files /etc/bpf-watchdog/rules.d/*.toml are TOML files with the rules by which the daemon judges the"
            " connections of the host. `bpf-watchdog metrics` lists the metrics and dimensions, `bpf-watchdog check`"
            " finds mistakes, `bpf-watchdog reload` puts a change into force."
        ),
        _example(_RULE_EXAMPLE),
        ".SH TABLES\n",
        *_keys({_header(name, node): node for name, node in properties.items()}),
        '.SH "[[rule]]"\n',
        *_keys(rule),
    ]
    for name, node in rule.items():
        table = node.get("items", node)
        if name != "where" and "properties" in table:
            parts.append(f'.SH "{_escape(_header(f"rule.{name}", node))}"\n{"".join(_keys(table["properties"]))}')
    parts += [".SH DIMENSIONS\n.PP\nNames in by, where and distinct:NAME.\n", *_keys(schema["definitions"])]
    parts.append('.SH "SEE ALSO"\n.BR bpf\\-watchdog (1),\n.BR bpf\\-watchdog.toml (5)\n')
    return "".join(parts)


def _schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    return schema


def _header(name: str, node: Mapping[str, Any]) -> str:
    return f"[[{name}]]" if node.get("type") == "array" else f"[{name}]"


def _keys(properties: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for key, node in properties.items():
        yield f".TP\n\\fB{_escape(key)}\\fR ({_type(node)})\n{_escape(node.get('description', ''))}{_values(node)}\n"


_TYPES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "table",
}


def _type(node: Mapping[str, Any]) -> str:
    """Return the types that a value can have: "text", "number, text or table"."""
    if node.get("pattern", "").startswith(r"^(?=\d)"):
        return "duration"
    types = list(dict.fromkeys(_TYPES[one["type"]] for one in node.get("anyOf", [node])))
    *others, last = types
    return f"{', '.join(others)} or {last}" if others else last


def _values(node: Mapping[str, Any]) -> str:
    if "minimum" in node and "maximum" in node:
        return _escape(f" From {node['minimum']:,} to {node['maximum']:,}.")
    listed = [value for one in node.get("anyOf", [node]) for value in one.get("enum", ())]
    values = [value for value in listed if not value.startswith("!")]  # excluding is the notation of every condition
    return _escape(f" One of: {', '.join(values)}.") if len(values) > 1 else ""


_LINE = 78  # characters of a line of roff


def tidy(page: str) -> str:
    """Return the page with short lines, and without a paragraph at the begin of a section, as mandoc(1) wants it."""
    lines: list[str] = []
    is_filled = True
    for line in re.sub(r"^(\.SH .*\n)\.PP\n", r"\1", page, flags=re.MULTILINE).splitlines():
        is_filled = (is_filled and line != ".nf") or line == ".fi"
        if not is_filled or line.startswith("."):
            lines.append(line)
        else:
            wrapped = textwrap.wrap(line, _LINE, break_long_words=False, break_on_hyphens=False)
            lines += (r"\&" + one if one.startswith((".", "'")) else one for one in wrapped)
    return "\n".join([*lines, ""])


PAGES = {
    "man1/bpf-watchdog.1": commands_page,
    "man5/bpf-watchdog.toml.5": settings_page,
    "man5/bpf-watchdog-rules.5": rules_page,
}


def main() -> None:
    """Write the pages into the folder that is the argument."""
    for place, make in PAGES.items():
        file = Path(sys.argv[1]) / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(tidy(make()), encoding="utf-8")


if __name__ == "__main__":
    main()
