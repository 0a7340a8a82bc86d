from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.sanitize import escape_unprintable, for_slack, for_syslog, for_syslog_value

# Any text, with an increased share of special characters.
TEXTS = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from('\\xuU0189abcdef"]&<>;\x1b\n\u202e\udc80\udcff\ud800'),
        st.characters(categories=["Cs"]),
    )
)
ESCAPE = re.compile(r"\\(?:(\\)|x([01][0-9a-f]|7f|[89a-f][0-9a-f])|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def read_back(text: str) -> str:
    """Reverse `escape_unprintable` by its documentation."""

    def original(match: re.Match[str]) -> str:
        backslash, byte, four, eight = match.groups()
        if backslash:
            return "\\"
        if byte:
            return chr(int(byte, 16)) if int(byte, 16) < 0x80 else chr(0xDC00 + int(byte, 16))
        return chr(int(four or eight, 16))

    return ESCAPE.sub(original, text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nginx: worker é 日本", "nginx: worker é 日本"),
        ("\x1b[31m\r\n\x00\x7f", r"\x1b[31m\x0d\x0a\x00\x7f"),
        ("\u009b\u202e\u200b\u2028\u00a0", r"\u009b\u202e\u200b\u2028\u00a0"),
        ("\udc80\udcff", r"\x80\xff"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        (r"dev-disk\x2dby.mount", r"dev-disk\x2dby.mount"),
        (r"\x1b", r"\\x1b"),
        ("\\\\", "\\\\\\"),
        ("\\\x1b", r"\\\x1b"),
    ],
)
def test_escapes_unprintable_characters(text, shown):
    assert escape_unprintable(text) == shown


@given(TEXTS)
def test_the_visible_form_is_printable_and_can_be_read_back(text):
    shown = escape_unprintable(text)
    assert shown.isprintable()
    assert read_back(shown) == text


@given(TEXTS, st.integers(0, 40))
def test_no_form_is_longer_than_its_limit_and_no_escape_is_cut(text, limit):
    short = escape_unprintable(text, limit)
    assert len(short) <= limit
    assert (
        short == escape_unprintable(text)
        or read_back(short.removesuffix("…")) == text[: len(read_back(short.removesuffix("…")))]
    )
    assert len(for_syslog(text, limit)) <= limit
    assert len(for_syslog_value(text, limit)) <= limit
    assert len(for_slack(text, limit)) <= limit


@given(TEXTS, st.integers(0, 40))
def test_octets_are_cut_between_characters(text, limit):
    for_syslog(text, limit).decode("utf-8", "strict")
    for_syslog_value(text, limit).decode("utf-8", "strict")


@pytest.mark.parametrize(
    ("limit", "shown"), [(0, ""), (1, "…"), (2, "a…"), (5, "a…"), (6, r"a\x1b…"), (7, "a\\x1bbc"), (8, "a\\x1bbc")]
)
def test_a_cut_is_marked_and_keeps_escapes_whole(limit, shown):
    assert escape_unprintable("a\x1bbc", limit) == shown


def test_slack_gets_its_three_characters_escaped_and_no_other():
    assert for_slack("<!channel> & @here *b* `x`", 100) == "&lt;!channel&gt; &amp; @here *b* `x`"


@given(TEXTS)
def test_nothing_that_slack_takes_for_markup_is_left(text):
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", for_slack(text, 1_000))


def test_syslog_values_have_their_three_characters_quoted():
    assert for_syslog_value('a"b]c\\d', 100) == rb"a\"b\]c\\d"


@given(TEXTS)
def test_no_syslog_value_ends_before_its_end(text):
    assert re.fullmatch(r'(?:[^"\\\]]|\\["\\\]])*', for_syslog_value(text, 1_000).decode())


def test_syslog_counts_octets_not_characters():
    assert for_syslog("éééé", 8) == "éééé".encode()
    assert for_syslog("éééé", 7) == "éé…".encode()
