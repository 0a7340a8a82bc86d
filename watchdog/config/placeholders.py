"""Texts that stand where a secret should be: unfilled templates, examples of manuals, encrypted values."""

from __future__ import annotations

import re
from typing import Final

# Marks of template languages and shells, anywhere in the text.
_TEMPLATES: Final = {
    "{{ … }}": re.compile(r"\{\{.*?\}\}", re.DOTALL),
    "{% … %}": re.compile(r"\{%.*?%\}", re.DOTALL),
    "<% … %>": re.compile(r"<%.*?%>", re.DOTALL),
    "${…}": re.compile(r"\$\{[A-Za-z_][^{}\s]*\}"),
    "$(…)": re.compile(r"\$\([A-Za-z_][^()]*\)"),
}
# Texts that are a placeholder as a whole, or as one part of a URL.
_WHOLE: Final = {
    "<…>": re.compile(r"<[^<>]*>"),
    "$NAME": re.compile(r"\$[A-Z_][A-Z0-9_]{2,}"),
    "@NAME@": re.compile(r"(@{1,2})[A-Z][A-Z0-9_]{2,}\1"),
    "__NAME__": re.compile(r"__[A-Z][A-Z0-9_]+__"),
    "[NAME]": re.compile(r"\[[A-Z][A-Z0-9_ -]+\]"),
    "xxx": re.compile(r"x{3,}|\*{3,}|\.{3,}|…", re.IGNORECASE),
}
_OBJECT: Final = r"(?:[a-z]*(?:token|key|password|passwd|secret|credential|webhook|url|uuid|id))"
_WORDS: Final = re.compile(
    r"(?:please)?(?:change|replace|fill)(?:me|this|it|in|with)*(?:now|later|please|before[a-z]*)?"
    rf"|(?:please)?(?:change|replace|fill|enter|insert|put|add|paste|set)(?:me|this|it|in|the)?(?:your|my|with)*{_OBJECT}(?:here)?"
    rf"|your{_OBJECT}(?:here)?|{_OBJECT}(?:goes)?here"
)
_WHOLE_WORDS: Final = frozenset(("todo", "tbd", "fixme", "placeholder", "none", "null", "undefined", "unset"))
_ENCRYPTED: Final = re.compile(
    r"\$ANSIBLE_VAULT;|!vault\b|ENC\[|\{cipher\}|age-encryption\.org/"
    r"|-----BEGIN (?:PGP MESSAGE|AGE ENCRYPTED FILE)-----"
)
_REFERENCE: Final = re.compile(
    r"(?:op|vault|awssm|gcpsm|akv|ref\+[a-z]+)://|vault:[^\s:]+[/#]|arn:aws:(?:secretsmanager|ssm):"
)
_PAGE: Final = re.compile(r"<(?:!doctype|html|\?xml)\b", re.IGNORECASE)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL_PARTS: Final = re.compile(r"[/?&=#:;,\s]+")


def placeholder_problem(text: str) -> str | None:
    """Return the problem of `text` if nobody can have meant it as a secret, None otherwise.

    The answer begins with "is" and does not contain the text.
    """
    for mark, pattern in _TEMPLATES.items():
        if pattern.search(text):
            return f"is an unfilled template: it contains {mark}"
    if _ENCRYPTED.match(text):
        return "is encrypted: give the secret in plain"
    if _REFERENCE.match(text):
        return "is a reference to a secret in another system, not the secret"
    if _PAGE.match(text):
        return "is a web page, not a secret"
    parts = _URL_PARTS.split(text) if _URL.match(text) else [text]
    for part in parts:
        for mark, pattern in _WHOLE.items():
            if pattern.fullmatch(part):
                return f"is a placeholder of the form {mark}"
        words = re.sub(r"[-_ .!]", "", part.lower())
        if _WORDS.fullmatch(words) or (part is text and words in _WHOLE_WORDS):
            return "is a placeholder: put the secret in its place"
    return None
