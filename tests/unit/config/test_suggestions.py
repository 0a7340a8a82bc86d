import pytest

from watchdog.config.suggestions import quote_value, unknown_name


def test_suggests_the_closest_known_word_in_every_case():
    assert unknown_name("state", "established", ("", "ESTABLISHED", "LISTEN")) == (
        'unknown state "established": did you mean "ESTABLISHED"?'
    )


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("sumary", "summary"),
        ("intervall", "interval"),
        ("recievers", "receivers"),
        ("widnow", "window"),
        ("proces", "process"),
        ("kepp", "keep"),
        ("sum", "summary"),
        ("window.size", "window"),
        ("silence", None),
        ("rule", None),
        ("templates", None),
        ("alerting", None),
        ("global", None),
    ],
)
def test_suggests_only_what_is_near(word, near):
    known = (
        "evidence",
        "heartbeat",
        "interval",
        "keep",
        "process",
        "receivers",
        "route",
        "sampling",
        "summary",
        "window",
    )
    message = unknown_name("key", word, known)
    assert message == f'unknown key "{word}": ' + (
        f'did you mean "{near}"?' if near else f"known are {', '.join(known)}"
    )


def test_names_all_known_words_when_none_is_near():
    assert unknown_name("stat", "zzz", ("b", "", "a")) == 'unknown stat "zzz": known are a, b'
    assert unknown_name("receiver", "x", ()) == 'unknown receiver "x": there are none'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\x1b[2J\n", '"\\u001b[2J\\u000a"'),
        ("x" * 81, '"' + "x" * 79 + '…"'),
        (True, "true"),
        (1.5, "1.5"),
        pytest.param(10**5000, "a very large number", id="over 4300 digits"),
    ],
)
def test_quotes_values_for_one_line_of_a_terminal(value, text):
    assert quote_value(value) == text
