"""The completions in real shells: commands, options and values, against the argument parsers."""

from __future__ import annotations

import argparse
import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchdog.cli.commands import COMMANDS, parser_of
from watchdog.measure.catalogue import DIMENSIONS
from watchdog.resources import shipped_rules_folder
from watchdog.selftest.runner import CHECK_MODULES

CHECKOUT = Path(__file__).parents[3]
PATIENCE = 120.0
SHELLS = ("bash", "zsh", "fish")
FOLDERS, FILES = {"folder"}, {"file.toml", "folder"}
NAMES = set(DIMENSIONS)
RECEIVERS = {"oncall", "second"}
RULES = {"own-rule", *(line[6:-1] for file in shipped_rules_folder().glob("*.toml")
                       for line in file.read_text().splitlines() if line.startswith('id = "'))}  # fmt: skip
VALUES = {
    **dict.fromkeys(("FILE", "PATH", "SOCKET"), FILES),
    **dict.fromkeys(("NAME=PATTERN", "NAME=VALUE", "DIM,…"), NAMES),
    "DIR": FOLDERS,
    "RECEIVER": RECEIVERS,
    "RULE": RULES,
}
SETTINGS = """\
# name = "no-receiver"
[[receiver]]
name = "oncall"
type = "console"
  [[receiver]]
[[mute]]
name = "nights"
[[receiver]]
type = "console"
name='second'
"""
OWN_RULE = '[lists]\nid = ["x"]\n[[rule]]\nid = "own-rule"\n'


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[tuple[str, list[argparse.Action]]]:
    """Yield the words of each command below a parser, and its actions that the help shows."""
    shown = [one for one in parser._actions if one.help != argparse.SUPPRESS]
    yield " ".join(words), shown
    for one in shown:
        if isinstance(one.choices, dict):
            for name, child in one.choices.items():
                yield from commands(child, (*words, name))


def all_commands() -> Iterator[tuple[str, list[argparse.Action]]]:
    """Yield as `commands`, of all commands."""
    for name in COMMANDS:
        found = next(one for one in parser_of(name)._actions if isinstance(one.choices, dict))
        yield from commands(found.choices[name], (name,))


def expected(action: argparse.Action) -> set[str]:
    """Return the values of an option or argument that a shell offers; paths are those that begin with "f"."""
    if action.choices is not None:
        return {*map(str, action.choices)}
    if action.dest == "receiver":
        return RECEIVERS
    if action.dest == "names":
        return set(CHECK_MODULES)
    return VALUES.get(str(action.metavar), set())


def lines(folder: Path) -> dict[str, set[str]]:
    """Return command lines, whose last word is to be completed, each with the completions of it."""
    found: dict[str, set[str]] = {"": set(COMMANDS), "no": {"notify", "notifications"}}
    seen = set()
    for words, actions in all_commands():
        found[f"{words} -"] = {name for one in actions for name in one.option_strings}
        arguments = [one for one in actions if not one.option_strings]
        for action in [*(one for one in actions if one.option_strings), *arguments[:1]]:
            values = expected(action)
            begin = f"{folder}/f" if values in (FILES, FOLDERS) else ""
            key = (*action.option_strings, *values)
            if action.nargs != 0 and key not in seen:
                seen.add(key)
                found[" ".join([words, *action.option_strings[:1], begin])] = values
    return {
        **found,
        "notifications list --receiver list --l": {"--limit", "--lost"},
        "alerts --state-dir show --json ": {"list", "show"},
        "alerts show x ": set(),
        "explain own-rule uni": {"unit"},
        "baseline show status --contr": {"--control"},
        "run --rules alerts --in": {"--interval"},
        "notifications list --state=de": {"delivered"},
        f"check --config={folder}/fi": {"file.toml"},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of the completions, which read the settings and rules of that folder."""
    folder = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, CHECKOUT / "packaging" / "generate" / "completions.py", folder], check=True)
    data = folder / "data"
    (data / "folder").mkdir(parents=True)
    (data / "file.toml").touch()
    (folder / "etc" / "rules.d").mkdir(parents=True)
    (folder / "etc" / "watchdog.toml").write_text(SETTINGS)
    (folder / "etc" / "rules.d" / "own.toml").write_text(OWN_RULE)
    for file in folder.rglob("*bpf-watchdog*"):
        if file.is_file():
            file.write_text(file.read_text().replace("/etc/bpf-watchdog", str(folder / "etc")))
    return folder


def completed(text: str) -> list[set[str]]:
    """Return the completions in the output of a shell, each list followed by dashes: the last parts of paths.

    A description follows a tab. fish repeats the option in --option=value.
    """

    def word(line: str) -> str:
        shown = line.partition("\t")[0].rstrip("=/")
        return shown.rpartition("=")[2].rpartition("/")[2]

    return [{word(line) for line in part.split("\n") if line} for part in text.split("---\n")[:-1]]


def bash(made, wanted):
    script = f"source {made}/bash-completion/completions/bpf-watchdog\ncompopt() {{ :; }}\n"
    for line in wanted:
        # Readline splits words at "=".
        words = [
            part
            for word in line.split(" ")
            for part in (word.replace("=", " = ").split(" ") if "--" in word else [word])
        ]
        script += f"COMP_WORDS=({shlex.join(['bpf-watchdog', *words])}) COMP_CWORD={len(words)}\n"
        script += "_bpf_watchdog; printf '%s\\n' \"${COMPREPLY[@]}\" ---\n"
    done = subprocess.run(["bash", "-euc", script], stdout=subprocess.PIPE, text=True, check=True)
    return completed(done.stdout)


def fish(made, wanted):
    script = f"source {made}/fish/vendor_completions.d/bpf-watchdog.fish\n"
    script += "".join(f"complete -C {shlex.quote(f'bpf-watchdog {line}')}; echo ---\n" for line in wanted)
    done = subprocess.run(["fish", "--no-config", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    # fish 4 also returns words that only contain the typed letters; people see them where no word begins with these.
    return [
        {one for one in words if one.startswith(line.split(" ")[-1])} or words
        for line, words in zip(wanted, completed(done.stdout), strict=True)
    ]


# An interactive zsh with its own completion system; the matches are written to a file, and the line stays as it is.
ZSHRC = r"""
PROMPT= RPROMPT=
fpath=({folder} $fpath)
autoload -U compinit
compinit -u -D
bindkey '^I' complete-word
zstyle ':completion:*' insert-tab false
setopt no_beep
compadd () {{
  if [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
  typeset -a found
  builtin compadd -O found "$@"
  (( $#found )) && print -rl -- "${{(@)found}}" >>{shown}
  builtin compadd "$@"
}}
finish () {{
  compstate[insert]= compstate[list]=
  comppostfuncs=(finish)
  print -r -- --- >>{shown}
}}
comppostfuncs=(finish)
print -r -- --- >>{shown}
"""


def zsh(made, wanted):
    home = made / "zsh-home"
    home.mkdir()
    shown = home / "shown"
    shown.touch()
    [file] = (made / "zsh").rglob("_bpf-watchdog")
    (home / ".zshrc").write_text(ZSHRC.format(folder=file.parent, shown=shown))
    main, side = pty.openpty()
    environment = {"ZDOTDIR": home, "HOME": home, "TERM": "dumb", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        ["zsh", "-d", "-i"], stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True
    ) as process:
        os.close(side)
        try:
            for number, line in enumerate([None, *wanted], start=1):
                if line is not None:
                    os.write(main, f"\x15bpf-watchdog {line}\t".encode())
                end = time.monotonic() + PATIENCE
                while shown.read_text().count("---\n") < number:
                    assert time.monotonic() < end, line
                    if select.select([main], [], [], 0.01)[0]:
                        os.read(main, 65_536)
        finally:
            process.kill()
            os.close(main)
    found = completed(shown.read_text())[1:]
    # Where nothing else is possible, zsh offers the options.
    return [
        words
        if line.endswith("-") or "--" in line.split(" ")[-1]
        else {one for one in words if not one.startswith("-")}
        for line, words in zip(wanted, found, strict=True)
    ]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_each_command_each_option_and_each_kind_of_value(made, shell):
    wanted = lines(made / "data")
    found = globals()[shell](made, wanted)
    assert len(found) == len(wanted) > 60
    differences = {
        line: {"missing": values - shown, "wrong": shown - values}
        for (line, values), shown in zip(wanted.items(), found, strict=True)
        if shown != values
    }
    assert differences == {}
