"""HTML of which no text and no attribute can leave its place."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from watchdog.sanitize import escape_unprintable
from watchdog.web.markup import MAX_NAME_CHARACTERS, Markup, document, element, join, name


class Reader(HTMLParser):
    """Keeps tags, attributes and text."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@given(st.text(), st.text())
def test_any_text_stays_text_and_any_value_stays_a_value(text, value):
    read = Reader(element("p", text, title=value).html)
    assert read.tags == [("p", {"title": escape_unprintable(value)})]
    assert read.text == escape_unprintable(text)


def test_parts_are_taken_as_they_are_and_nothing_is_left_out():
    inner = element("b", "1 < 2")
    assert element("p", inner, None, " & ", join([inner, "x"])).html == (
        "<p><b>1 &lt; 2</b> &amp; <b>1 &lt; 2</b>x</p>"
    )


def test_names_and_kinds_of_attributes():
    made = element("dl", class_="lines", aria_label="A", open=True, hidden=False, title=None, x1=0, y1=1.5)
    assert made.html == '<dl class="lines" aria-label="A" open x1="0" y1="1.5"></dl>'
    assert element("meta", charset="utf-8").html == '<meta charset="utf-8">'


def test_a_name_is_isolated_and_bounded_and_escaped_once():
    assert name("\u202eevil\x1b").html == r"<bdi>\u202eevil\x1b</bdi>"
    assert name(r"dev\x2dby").html == r"<bdi>dev\x2dby</bdi>"
    assert len(name("ab\n" * 1_000).html) <= MAX_NAME_CHARACTERS + len("<bdi></bdi>")


def test_a_document_has_its_type_and_any_text_can_be_encoded():
    assert document(element("html", "\udcff")) == b"<!DOCTYPE html>\n<html>\\xff</html>\n"
    assert isinstance(join([]), Markup)
