"""Completions for bash, zsh and fish: static, so that a key press starts no program.

usage: completions.py FOLDER: writes FOLDER/bash-completion/completions, FOLDER/zsh/site-functions, FOLDER/fish/…
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from parsers import (  # noqa: E402
    CommandSyntax,
    ValueKind,
    all_commands,
    help_text,
    shipped_rules,
    takes_value,
    value_kind,
    value_name,
    value_words,
)

PROGRAM = "bpf-watchdog"
PLACES = {
    "bash": f"bash-completion/completions/{PROGRAM}",
    "zsh": f"zsh/site-functions/_{PROGRAM}",
    "fish": f"fish/vendor_completions.d/{PROGRAM}.fish",
}
SETTINGS, RULES = "/etc/bpf-watchdog/watchdog.toml", "/etc/bpf-watchdog/rules.d"
_HEAD = "made by packaging/generate/completions.py from the argument parsers"


def _short(text: str) -> str:
    """Return the first clause of a help text, for a menu."""
    return re.split(r"[;(:]|\. |, for example", text, maxsplit=1)[0].strip()[:70]


# ----------------------------------------------------------------------------------------------------------------- bash

_BASH = """\
# bash completion for {program}; {head}
# Print the values of a key in the tables of a kind: [[receiver]] name FILE…
_bpf_watchdog_names() {{
    local table=$1 file line inside= pattern="^[[:space:]]*$2[[:space:]]*=[[:space:]]*[\\"']([A-Za-z0-9_-]+)"
    shift 2
    for file; do
        [[ -r $file ]] || continue
        while IFS= read -r line || [[ $line ]]; do
            if [[ $line == "$table"* ]]; then inside=1; elif [[ $line == "["* ]]; then inside=; fi
            [[ $inside && $line =~ $pattern ]] || continue
            printf '%s\\n' "${{BASH_REMATCH[1]}}"
        done <"$file"
    done
}}
_bpf_watchdog() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words= word position=0 index skip=0
    COMPREPLY=()
    # The words of the command so far, without options and their values. Readline splits --option=value at the "=".
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${{COMP_WORDS[index]}}
        if ((skip)); then [[ $word == = ]] || skip=0; continue; fi
        case "$words $word" in
{with_values}
        esac
        [[ $word == -* ]] && continue
        case "$words $word" in
{known}
            *) ((++position)) ;;
        esac
    done
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    case "$words $prev" in
{values}
    esac
    [[ ${{COMP_WORDS[COMP_CWORD]}} == = || ${{COMP_WORDS[COMP_CWORD-1]}} == = ]] && return
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
    with_values, values, options, arguments, known = [], [], [], [], []
    for command in all_commands():
        path = "".join(f" {word}" for word in command.words)
        names = [name for one in command.options for name in one.option_strings]
        options.append(_case(path, _bash_words(names)))
        for option in filter(takes_value, command.options):
            for name in option.option_strings:
                with_values.append(_case(f"{path} {name}", "skip=1; continue"))
                values.append(_case(f"{path} {name}", f"{_bash_value(option)}; return"))
        if command.choices:
            known += (_case(f"{path} {word}", f'words="{path} {word}"') for word in command.choices)
            arguments.append(_case(path, f"((position)) || {_bash_words(command.choices)}"))
        elif command.arguments:
            arguments.append(_case(path, _bash_arguments(command)))
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


def _bash_arguments(command: CommandSyntax) -> str:
    """Return the completion of the arguments by their position; the last one may be repeated."""
    cases = []
    for place, argument in enumerate(command.arguments):
        pattern = "*" if argument.nargs in {"*", "+"} else str(place)
        cases.append(f"{pattern}) {_bash_value(argument)} ;;")
    return f"case $position in {' '.join(cases)} esac"


def _bash_words(words: Iterable[str]) -> str:
    return f'mapfile -t COMPREPLY < <(compgen -W {shlex.quote(" ".join(words))} -- "$cur")'


def _bash_value(action: argparse.Action) -> str:
    names = 'mapfile -t COMPREPLY < <(compgen -W "{}$(_bpf_watchdog_names \'{}\' {} {})" -- "$cur")'
    match value_kind(action):
        case ValueKind.WORD:
            return _bash_words(value_words(action))
        case ValueKind.MATCHER:
            return f"compopt -o nospace; {_bash_words(f'{word}=' for word in value_words(action))}"
        case ValueKind.RECEIVER:
            return names.format("", "[[receiver]]", "name", SETTINGS)
        case ValueKind.RULE:
            return names.format(" ".join([*shipped_rules(), ""]), "[[rule]]", "id", f"{RULES}/*.toml")
        case ValueKind.FILE | ValueKind.FOLDER as kind:
            letter = "d" if kind is ValueKind.FOLDER else "f"
            return f'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -{letter} -- "$cur")'
        case _:
            return ":"


# ------------------------------------------------------------------------------------------------------------------ zsh


_ZSH = """\
# Set reply to the values of a key in the tables of a kind: [[receiver]] name FILE…
_bpf_watchdog_names() {{
  local table=$1 file line inside pattern="^[[:space:]]*$2[[:space:]]*=[[:space:]]*[\\"']([A-Za-z0-9_-]+)"
  local -a match mbegin mend
  shift 2
  reply=()
  for file; do
    for line in "${{(@f)$(<$file)}}"; do
      if [[ $line == "$table"* ]]; then inside=1; elif [[ $line == "["* ]]; then inside=; fi
      [[ -n $inside && $line =~ $pattern ]] || continue
      reply+=($match[1])
    done
  done
}}
_bpf_watchdog_receivers() {{
  local -a reply
  _bpf_watchdog_names '[[receiver]]' name {settings}(Nr)
  compadd -a reply
}}
_bpf_watchdog_rules_in_force() {{
  local -a reply
  _bpf_watchdog_names '[[rule]]' id {folder}/*.toml(Nr)
  compadd -a reply
  compadd -- {rules}
}}
"""


def zsh() -> str:
    """Return the completion for zsh."""
    rules = " ".join(shipped_rules())
    parts = [f"#compdef {PROGRAM}\n# {_HEAD}\n", _ZSH.format(settings=SETTINGS, folder=RULES, rules=rules)]
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
            specs.append(shlex.quote(f"{place}:{_zsh_name_of_value(action)}:{_zsh_value(action)}"))
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
    value = f":{_zsh_name_of_value(option)}:{_zsh_value(option)}" if takes_value(option) else ""
    names = option.option_strings
    if takes_value(option):  # the value may follow an "=" too
        names = [f"{name}=" if name.startswith("--") else name for name in names]
    many = "*" if isinstance(option, argparse._AppendAction) else f"({' '.join(option.option_strings)})"  # noqa: SLF001
    if len(names) == 1:
        return shlex.quote(f"{many}{names[0]}[{text}]{value}")
    return shlex.quote(many) + "{" + ",".join(names) + "}" + shlex.quote(f"[{text}]{value}")


def _zsh_name_of_value(action: argparse.Action) -> str:
    return value_name(action).replace(":", r"\:")


def _zsh_value(action: argparse.Action) -> str:
    match value_kind(action):
        case ValueKind.WORD:
            return f"({' '.join(value_words(action))})"
        case ValueKind.MATCHER:
            return f"compadd -S = -- {' '.join(value_words(action))}"
        case ValueKind.RECEIVER:
            return "_bpf_watchdog_receivers"
        case ValueKind.RULE:
            return "_bpf_watchdog_rules_in_force"
        case ValueKind.FILE:
            return "_files"
        case ValueKind.FOLDER:
            return "_files -/"
        case _:
            return " "


# ----------------------------------------------------------------------------------------------------------------- fish


_MANY = 1_000  # arguments
_FISH = """\
# {head}
# Print the number of arguments so far, then the words of the command, without options and their values.
function __bpf_watchdog_words
    set -l at
    set -l skip 0
    set -l arguments 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
        else if contains -- $word {with_values}
            set skip 1
        else if string match -q -- '-*' $word
        else if contains -- (string join ' ' $at $word) {commands}
            set -a at $word
        else
            set arguments (math $arguments + 1)
        end
    end
    printf '%s\\n' $arguments $at
end
function __bpf_watchdog_at
    set -l words (__bpf_watchdog_words)
    set -e words[1]
    test "$words" = "$argv"
end
# __bpf_watchdog_argument FIRST LAST WORD…: whether an argument of the command with this number is to come.
function __bpf_watchdog_argument -a first last
    set -l words (__bpf_watchdog_words)
    set -l number $words[1]
    set -e words[1]
    test "$words" = "$argv[3..]"; and test $number -ge $first -a $number -le $last
end
# The values of a key in the tables of a kind: receiver name FILE…
function __bpf_watchdog_names -a table key
    for file in $argv[3..]
        test -r $file; or continue
        set -l inside 0
        while read -l line
            string match -q -- '[*' $line; and set inside 0
            string match -q -- "[[$table]]*" $line; and set inside 1
            test $inside = 1; and string replace -rf "^\\s*$key\\s*=\\s*[\\"']([A-Za-z0-9_-]+).*" '$1' -- $line
        end <$file
    end
end
function __bpf_watchdog_rules
    set -l files {folder}/*.toml
    __bpf_watchdog_names rule id $files
    printf '%s\\n' {rules}
end
complete -c {program} -f"""


def fish() -> str:
    """Return the completion for fish."""
    commands = list(all_commands())
    options = {
        name for one in commands for option in filter(takes_value, one.options) for name in option.option_strings
    }
    lines = [
        _FISH.format(
            program=PROGRAM,
            head=_HEAD,
            with_values=" ".join(sorted(options)),
            commands=" ".join(shlex.quote(" ".join(one.words)) for one in commands if one.words),
            folder=RULES,
            rules=" ".join(shipped_rules()),
        )
    ]
    summaries = {command.words: command.summary for command in commands}
    for command in commands:
        head = f"complete -c {PROGRAM} -n {shlex.quote(' '.join(('__bpf_watchdog_at', *command.words)))}"
        lines += (f"{head} -a {one} -d {shlex.quote(summaries[*command.words, one])}" for one in command.choices)
        for option in command.options:
            names = " ".join(
                f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in option.option_strings
            )
            value = f" -r {_fish_value(option)}" if takes_value(option) else ""
            lines.append(f"{head} {names}{value} -d {shlex.quote(_short(help_text(option)))}")
        for place, one in enumerate(command.arguments):
            last = _MANY if one.nargs in {"*", "+"} else place
            at = shlex.quote(" ".join((f"__bpf_watchdog_argument {place} {last}", *command.words)))
            lines += [f"complete -c {PROGRAM} -n {at} {value}"] if (value := _fish_value(one)) else []
    return "\n".join(lines) + "\n"


def _fish_value(action: argparse.Action) -> str:
    match value_kind(action):
        case ValueKind.WORD:
            return f"-f -a {shlex.quote(' '.join(value_words(action)))}"
        case ValueKind.MATCHER:
            return f"-f -a {shlex.quote(' '.join(f'{word}=' for word in value_words(action)))}"
        case ValueKind.RECEIVER:
            return f"-f -a '(__bpf_watchdog_names receiver name {SETTINGS})'"
        case ValueKind.RULE:
            return "-f -a '(__bpf_watchdog_rules)'"
        case ValueKind.FILE:
            return "-F"
        case ValueKind.FOLDER:
            return "-f -a '(__fish_complete_directories)'"
        case _:
            return "-f" if action.option_strings else ""


MAKERS = {"bash": bash, "zsh": zsh, "fish": fish}


def main() -> None:
    """Write the completions into the folder that is the argument."""
    for shell, make in MAKERS.items():
        file = Path(sys.argv[1]) / PLACES[shell]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
