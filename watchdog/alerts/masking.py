"""Masking of secrets in command lines: obvious ones become `***` before the line is stored or sent.

Obvious are: values of options, variables, query parameters and JSON keys with a name that suggests a secret; the text
after `Authorization:`, `Cookie:`, `Bearer` and `Basic`; the user part of URLs; the password in `user:password` and in
the single-letter options of a few programs. No list can be complete: `[evidence] command_line = false` leaves command
lines out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"

_ANYWHERE = (
    r"password|passwd|passphrase|passcode|secret|token|credentials?|api[-_.]?key|access[-_.]?key|private[-_.]?key"
)
_ALONE = (
    r"pass|pwd|bearer|creds?|auth(?:orization)?|session|cookie|signature|dsn|(?:account|master|auth|signing)[-_.]?key"
)
# Without a pattern for the text before it: that would be tried at each letter of a possibly very long word.
_NAME = rf"(?:{_ANYWHERE}|(?<![a-z])(?:{_ALONE}))(?:[-_.]?(?:id|key|value|hash|env|string|\d+))?(?![a-z])"
_VALUE = r"(?P<value>\"[^\"]*\"?|'[^']*'?|[^\s&;,}\"']+)"
_NAMED = re.compile(rf"(?P<name>{_NAME}[\"']?\s{{0,3}}[=:]\s{{0,3}}){_VALUE}", re.IGNORECASE)
_OPTION = re.compile(rf"--?[\w.-]{{0,60}}?{_NAME}", re.IGNORECASE)
_SPACED = re.compile(rf"(?P<name>(?<!\S){_OPTION.pattern}\s{{1,3}})(?P<value>(?!-)\S+)", re.IGNORECASE)
_HEADER = re.compile(
    r"(?P<name>\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{0,40}(?:key|token|secret)):\s{0,3}).+",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?P<name>\b(?:bearer|basic)\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<name>\b[a-z][a-z0-9+.-]{0,20}://)[^\s/?#]+@", re.IGNORECASE)
_USER_OPTION = re.compile(r"-u|-U|--(?:proxy-|http-)?user|--userpwd")
_USER = re.compile(r"(?P<user>[^\s:=]*):.+", re.DOTALL)
# An argument that is an option or a variable with its value: all of it is secret, spaces too.
_ASSIGNED = re.compile(rf"(?P<name>[\w.-]{{0,60}}?{_NAME}=).+", re.IGNORECASE | re.DOTALL)
_SCRIPT_OPTION = re.compile(r"-\w{0,8}c")  # its argument is a text of commands: of `sh -c`, `su -c`
# Secrets by their form alone: webhooks and tokens of Slack, tokens of GitHub, key ids of AWS, JSON Web Tokens.
_SHAPES = re.compile(
    r"(?<=hooks\.slack\.com/)\S+|\b(?:xox[a-z]-[\w-]{8,}|gh[a-z]_\w{16,}|A[KS]IA[A-Z0-9]{12,}|eyJ[\w-]{8,200}\.[\w.-]+)"
)
# Password options of some programs, by name of the program; the value is in the same argument, or in the next one.
_LETTERS = {"mysql": "-p", "mariadb": "-p", "mysqldump": "-p", "sshpass": "-p", "redis-cli": "-a", "ldapsearch": "-w"}
_IN_NEXT = ("sshpass", "redis-cli", "ldapsearch")


def mask_secrets(arguments: Sequence[str]) -> str:
    """Return a command line as one text with its secrets masked."""
    program = arguments[0].rpartition("/")[2] if arguments else ""
    shown: list[str] = []
    hide_next = user_next = False
    for number, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if hide_next and not argument.startswith("-"):
            shown.append(MASK)
        elif user_next:
            shown.append(_hide_password(argument))
        elif equals and _USER_OPTION.fullmatch(option):
            shown.append(f"{option}={_hide_password(value)}")
        else:
            is_script = number > 0 and _SCRIPT_OPTION.fullmatch(arguments[number - 1]) is not None
            shown.append(_argument(argument, program if number else "", is_script=is_script))
        letter = _LETTERS.get(program) if number and program in _IN_NEXT else None
        hide_next = number > 0 and (_OPTION.fullmatch(argument) is not None or argument == letter)
        user_next = _USER_OPTION.fullmatch(argument) is not None
    return mask_text(" ".join(shown))


def _hide_password(argument: str) -> str:
    return _USER.sub(rf"\g<user>:{MASK}", argument)


def _argument(argument: str, program: str, *, is_script: bool) -> str:
    if not is_script and (assigned := _ASSIGNED.fullmatch(argument)):
        return assigned["name"] + MASK
    letter = _LETTERS.get(program)
    if letter is not None and argument.startswith(letter) and len(argument) > len(letter):
        return letter + MASK
    return _HEADER.sub(rf"\g<name>{MASK}", argument)


def mask_text(line: str) -> str:
    """Return a line with its secrets masked, as far as they are recognisable without the borders of arguments."""
    line = _USERINFO.sub(rf"\g<name>{MASK}@", line)
    line = _SCHEME.sub(rf"\g<name>{MASK}", line)
    for pattern in (_NAMED, _SPACED):
        line = pattern.sub(lambda found: found[0] if MASK in found["value"] else found["name"] + MASK, line)
    return _SHAPES.sub(MASK, line)
