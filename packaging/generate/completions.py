"""Completions for bash, zsh and fish: static, so that a key press starts no program.

usage: completions.py FOLDER: writes FOLDER/bash-completion/completions, FOLDER/zsh/site-functions, FOLDER/fish/…
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from parsers import CommandSyntax, all_commands, help_text, takes_value, value_kind, value_name  # noqa: E402

PROGRAM = "bpf-watchdog"
PLACES = {
    "bash": f"bash-completion/completions/{PROGRAM}",
    "zsh": f"zsh/site-functions/_{PROGRAM}",
    "fish": f"fish/vendor_completions.d/{PROGRAM}.fish",
}
_HEAD = "made by packaging/generate/completions.py from the argument parsers"


def _short(text: str) -> str:
    """Return the first clause of a help text, for a menu."""
    return re.split(r"[;(:]|\. |, for example", text, maxsplit=1)[0].strip()[:70]


# ----------------------------------------------------------------------------------------------------------------- bash

_BASH = """\
# bash completion for {program}; {head}
_bpf_watchdog() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words= word position=0 index skip=0
    COMPREPLY=()
    # The words of the command so far, without options and their values.
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${{COMP_WORDS[index]}}
        if ((skip)); then skip=0; continue; fi
        case "$words $word" in
{with_values}
        esac
        [[ $word == -* ]] && continue
        case "$words $word" in
{known}
            *) ((++position)) ;;
        esac
    done
    case "$words $prev" in
{values}
    esac
    if [[ $cur == -* ]]; then
        case "$words" in
{options}
        esac
        return
    fi
    case "$words" in
{arguments}
    esac
}}
complete -F _bpf_watchdog {program}
"""


def bash() -> str:
    """Return the completion for bash."""
    commands = list(all_commands())
    with_values, values, options, arguments, known = [], [], [], [], []
    for command in commands:
        path = "".join(f" {word}" for word in command.words)
        names = [name for one in command.options for name in one.option_strings]
        options.append(_case(path, f'mapfile -t COMPREPLY < <(compgen -W {shlex.quote(" ".join(names))} -- "$cur")'))
        for option in filter(takes_value, command.options):
            for name in option.option_strings:
                with_values.append(_case(f"{path} {name}", "skip=1; continue"))
                values.append(_case(f"{path} {name}", f"{_bash_value(option)}; return"))
        if command.choices:
            known += (_case(f"{path} {word}", f'words="{path} {word}"') for word in command.choices)
            words = shlex.quote(" ".join(command.choices))
            arguments.append(_case(path, f'((position)) || mapfile -t COMPREPLY < <(compgen -W {words} -- "$cur")'))
        elif command.arguments and (value := _bash_value(command.arguments[0])) != ":":
            arguments.append(_case(path, value))
    lines = {
        "with_values": with_values,
        "known": known,
        "values": values,
        "options": options,
        "arguments": arguments,
    }
    return _BASH.format(program=PROGRAM, head=_HEAD, **{name: "\n".join(found) for name, found in lines.items()})


def _case(pattern: str, action: str) -> str:
    return f"            {shlex.quote(pattern)}) {action} ;;"


def _bash_value(action: argparse.Action) -> str:
    if action.choices is not None:
        words = shlex.quote(" ".join(map(str, action.choices)))
        return f'mapfile -t COMPREPLY < <(compgen -W {words} -- "$cur")'
    kind = value_kind(action)
    if not kind:
        return ":"
    return f'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -{"d" if kind == "folder" else "f"} -- "$cur")'


# ------------------------------------------------------------------------------------------------------------------ zsh


def zsh() -> str:
    """Return the completion for zsh."""
    parts = [f"#compdef {PROGRAM}\n# {_HEAD}\n"]
    parts += (_zsh_function(command) for command in all_commands())
    return "\n".join([*parts, f'{_zsh_name(())} "$@"\n'])


def _zsh_name(words: tuple[str, ...]) -> str:
    return "_".join(("_bpf_watchdog", *(re.sub(r"\W", "_", word) for word in words)))


def _zsh_function(command: CommandSyntax) -> str:
    specs = [_zsh_option(option) for option in command.options]
    lines = [f"{_zsh_name(command.words)}() {{"]
    if command.choices:
        lines += ["  local context state state_descr line", "  typeset -A opt_args"]
        specs += ["'1:command:->command'", "'*::argument:->argument'"]
    else:
        for number, action in enumerate(command.arguments, start=1):
            place = "*" if action.nargs in {"*", "+"} else f"{number}:" if action.nargs == "?" else str(number)
            specs.append(shlex.quote(f"{place}:{value_name(action)}:{_zsh_value(action)}"))
    lines.append("  _arguments -C \\\n    " + " \\\n    ".join(specs))
    if command.choices:
        described = {
            one.words[-1]: one.summary for one in all_commands() if one.words[:-1] == command.words and one.words
        }
        entries = " ".join(shlex.quote(f"{name}:{described[name]}") for name in command.choices)
        lines += [
            "  case $state in",
            f"    command) local -a commands=({entries}); _describe command commands ;;",
            "    argument) case $words[1] in",
            *(f"      {shlex.quote(name)}) {_zsh_name((*command.words, name))} ;;" for name in command.choices),
            "    esac ;;",
            "  esac",
        ]
    return "\n".join([*lines, "}\n"])


def _zsh_option(option: argparse.Action) -> str:
    text = re.sub(r"([\[\]:\\])", r"\\\1", _short(help_text(option)))
    value = f":{value_name(option)}:{_zsh_value(option)}" if takes_value(option) else ""
    names = option.option_strings
    many = "*" if isinstance(option, argparse._AppendAction) else f"({' '.join(names)})"  # noqa: SLF001
    if len(names) == 1:
        return shlex.quote(f"{many}{names[0]}[{text}]{value}")
    return shlex.quote(many) + "{" + ",".join(names) + "}" + shlex.quote(f"[{text}]{value}")


def _zsh_value(action: argparse.Action) -> str:
    if action.choices is not None:
        return f"({' '.join(map(str, action.choices))})"
    return {"file": "_files", "folder": "_files -/"}.get(value_kind(action), " ")


# ----------------------------------------------------------------------------------------------------------------- fish


def fish() -> str:
    """Return the completion for fish."""
    lines = [f"# {_HEAD}", f"complete -c {PROGRAM} -f"]
    commands = list(all_commands())
    summaries = {command.words: command.summary for command in commands}
    for command in commands:
        condition = _fish_condition(command)
        for word in command.choices:
            summary = shlex.quote(summaries[*command.words, word])
            lines.append(f"complete -c {PROGRAM} -n {condition} -a {word} -d {summary}")
        for option in command.options:
            names = " ".join(
                f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in option.option_strings
            )
            text = shlex.quote(_short(help_text(option)))
            lines.append(f"complete -c {PROGRAM} -n {condition} {names}{_fish_value(option)} -d {text}")
        if not command.choices and command.arguments and (value := _fish_argument(command.arguments[0])):
            lines.append(f"complete -c {PROGRAM} -n {condition} {value}")
    return "\n".join(lines) + "\n"


def _fish_condition(command: CommandSyntax) -> str:
    if not command.words:
        return "__fish_use_subcommand"
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
    not_yet = f"; and not __fish_seen_subcommand_from {' '.join(command.choices)}" if command.choices else ""
    return shlex.quote(seen + not_yet)


def _fish_value(option: argparse.Action) -> str:
    if not takes_value(option):
        return ""
    if option.choices is not None:
        return f" -x -a {shlex.quote(' '.join(map(str, option.choices)))}"
    return {"file": " -r -F", "folder": " -x -a '(__fish_complete_directories)'"}.get(value_kind(option), " -x")


def _fish_argument(action: argparse.Action) -> str:
    if action.choices is not None:
        return f"-a {shlex.quote(' '.join(map(str, action.choices)))}"
    return {"file": "-F", "folder": "-a '(__fish_complete_directories)'"}.get(value_kind(action), "")


MAKERS = {"bash": bash, "zsh": zsh, "fish": fish}


def main() -> None:
    """Write the completions into the folder that is the argument."""
    for shell, make in MAKERS.items():
        file = Path(sys.argv[1]) / PLACES[shell]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
