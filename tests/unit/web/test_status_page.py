"""The status page: valid, accessible, without anything that runs, whatever the names on it are."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from status_views import (
    HOSTILE,
    hostile_view,
    make_active_alert,
    make_alert_detail,
    make_rule_status,
    make_series,
    make_status_view,
)

from watchdog.control.rule_handlers import WorstGroup
from watchdog.sanitize import escape_unprintable
from watchdog.web import status_page
from watchdog.web.page_style import CSS
from watchdog.web.status_page import REFRESH_SECONDS, StatusPage
from watchdog.web.status_view import ShownRule
from watchdog.web.web_page import WebRequest

XHTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
ALLOWED = set(
    re.findall(
        r"\w+",
        "html head meta title style body header main footer nav section article figure figcaption details summary "
        "h1 h2 h3 p a ul li dl dt dd b bdi code span div table caption thead tbody tr th td",
    )
)
ALLOWED_SVG = {"svg", "title", "g", "line", "polyline", "polygon", "text"}


def render(view, query=""):
    return StatusPage(lambda: view).page(WebRequest("/", query, ""))


class Document:
    """A page, parsed as a browser does; any error of the parser is an error here."""

    def __init__(self, view):
        parser = html5lib.HTMLParser(strict=True)
        self.root = parser.parse(render(view).body, likely_encoding="utf-8")
        self.ids = {one.get("id"): one for one in self.root.iter() if one.get("id")}

    def all(self, tag, prefix=XHTML):
        return list(self.root.iter(prefix + tag))

    def text(self, node=None):
        return "".join((self.root if node is None else node).itertext())


@pytest.fixture(scope="module")
def hostile():
    return Document(hostile_view())


def test_only_known_elements_and_no_attribute_that_runs_or_loads_anything(hostile):
    tags = {one.tag for one in hostile.root.iter()}
    assert tags <= {XHTML + tag for tag in ALLOWED} | {SVG + tag for tag in ALLOWED_SVG}
    for one in hostile.root.iter():
        assert not [
            key for key in one.attrib if key.startswith("on") or key in {"style", "src", "srcset", "xlink:href"}
        ]
        href = one.get("href", "")
        assert re.match(r"#|/(\?refresh=30|metrics)?$|https://wiki\.example\.net/storm$", href) or not href


def test_hostile_names_are_shown_escaped_in_every_place(hostile):
    text = hostile.text(hostile.all("body")[0])
    for name in HOSTILE:
        assert escape_unprintable(name) in text
    assert not [character for character in text.rstrip("\n") if not character.isprintable()]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=()), min_size=1, max_size=15))
def test_any_name_leaves_the_form_of_the_page_alone(name):
    def view_of(name):
        alert = make_active_alert(labels={"process": name}, summary=name, reason=name)
        worst = WorstGroup({"process": name}, 1.0, "1", 0.1)
        rules = (ShownRule(make_rule_status(state="unknown", reason=name, worst=worst), "rate", None),)
        return make_status_view(alerts=(make_alert_detail(alert),), rules=rules)

    def form(view):
        return [(one.tag, sorted(one.attrib)) for one in Document(view).root.iter()]

    assert form(view_of(name)) == form(view_of("x"))


def test_ids_are_unique_and_every_reference_has_its_target(hostile):
    found = [one.get("id") for one in hostile.root.iter() if one.get("id")]
    assert len(found) == len(set(found))
    references = [one.get("href")[1:] for one in hostile.all("a") if one.get("href").startswith("#")]
    references += [one.get("aria-labelledby") for one in hostile.root.iter() if one.get("aria-labelledby")]
    assert len(references) > 20
    assert set(references) <= set(found)


def test_the_page_has_its_landmarks_language_and_headings_in_order(hostile):
    assert hostile.root.get("lang") == "en"
    assert "web-1" in hostile.all("title")[0].text
    assert [len(hostile.all(tag)) for tag in ("header", "main", "footer", "nav", "h1")] == [1] * 5
    levels = [int(one.tag[-1]) for one in hostile.root.iter() if re.fullmatch(XHTML + "h[1-6]", str(one.tag))]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_tables_have_captions_and_header_cells_and_can_be_scrolled_by_keyboard(hostile):
    tables = hostile.all("table")
    assert len(tables) == 4
    for table in tables:
        assert table.find(f"{XHTML}caption").text
        assert {one.get("scope") for one in table.iter(f"{XHTML}th")} == {"col", "row"}
        widths = {len(list(row)) for row in table.iter(f"{XHTML}tr")}
        assert len(widths) == 1
    frames = [one for one in hostile.all("div") if one.get("class") == "scroll"]
    assert len(frames) == 4
    assert all((one.get("tabindex"), one.get("role")) == ("0", "region") and one.get("aria-label") for one in frames)


def test_charts_have_a_name_and_the_same_in_words(hostile):
    charts = hostile.all("svg", SVG)
    assert len(charts) == 5
    assert all(one.get("role") == "img" and hostile.ids[one.get("aria-labelledby")].text for one in charts)
    words = [hostile.text(one) for one in hostile.all("figcaption")]
    assert len(words) == 5
    assert any(
        re.search(r"newest 6\d\d/s; highest 6\d\d/s at \d\d:\d\d UTC; warning above 100/s", one) for one in words
    )


def test_a_state_is_a_word_and_not_a_colour_alone(hostile):
    for article in hostile.all("article"):
        kind = article.get("class")
        if kind:
            assert re.search("critical|warning|pending|firing|unknown", hostile.text(article)), kind


def _luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(one * 2 for one in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_4_5_in_both_schemes(scheme):
    blocks = re.findall(r":root\{([^}]*)\}", CSS)
    colours = dict(re.findall(r"--([a-z]+):(#[0-9a-f]+)", blocks[0 if scheme == "light" else 1]))
    assert len(colours) == 12
    for ground in ("bg", "card"):
        for name in ("text", "muted", "link", "critical", "warning", "ok"):
            low, high = sorted(_luminance(colours[one]) for one in (name, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_the_policy_allows_the_style_sheet_and_nothing_else():
    page = render(make_status_view())
    headers = dict(page.headers)
    digest = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    assert f"<style>{CSS}</style>".encode() in page.body
    assert headers["Content-Security-Policy"].split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    assert (headers["Referrer-Policy"], headers["X-Frame-Options"]) == ("no-referrer", "DENY")
    assert page.content_type == "text/html; charset=utf-8"


def test_it_loads_itself_again_only_where_asked_and_that_can_be_stopped():
    still, moving = render(make_status_view()), render(make_status_view(), f"refresh={REFRESH_SECONDS}")
    assert "Refresh" not in dict(still.headers)
    assert dict(moving.headers)["Refresh"] == "30"
    assert b'href="/?refresh=30"' in still.body
    assert b'<a href="/">stop</a>' in moving.body
    assert "Refresh" not in dict(render(make_status_view(), "refresh=1&refresh=30").headers)


def test_it_is_made_once_however_many_ask(monkeypatch):
    views = []

    def read():
        views.append(make_status_view())
        return views[-1]

    page = StatusPage(read)
    for query in ["", "refresh=30", "x=1"] * 20:
        page.page(WebRequest("/", query, ""))
    assert len(views) == 1
    monkeypatch.setattr(status_page, "MIN_AGE_SECONDS", 0.0)
    page.page(WebRequest("/", "", ""))
    assert len(views) == 2


def test_a_quiet_host_has_a_sentence_in_place_of_each_empty_section():
    view = make_status_view()
    alerts = dataclasses.replace(view.status.alerts, critical=0)
    status = dataclasses.replace(view.status, alerts=alerts, receivers=())
    text = Document(dataclasses.replace(view, status=status, alerts=(), rules=(), ranking=None)).text()
    for sentence in (
        "No alert fires; 0 pending",
        "No alert is pending or firing.",
        "The first half minute is not over yet.",
        "No receiver is configured.",
        "none since the start",
        "No silence or acknowledgement is in force.",
    ):
        assert sentence in text


def test_a_rule_that_learns_has_no_limit_yet():
    worst = WorstGroup({"process": "x"}, 14_620.0, "14,620", 487.3)
    rule = ShownRule(
        make_rule_status(worst=worst, limit_text="-", learning_seconds=86_400.0), "count", make_series([1.0])
    )
    text = Document(make_status_view(rules=(rule,))).text()
    assert "learning, 1 d 0 h left14,620, no limit yet, worst of 12 groups: process x" in text


def test_problems_are_shown_in_words(hostile):
    text = hostile.text()
    for sentence in (
        "problem: receiver chat is down for 14 min: connection refused",
        "131 further alerts",
        "every 2 s, configured: 1 s",
        "missed_events 12,402",
        "closed-by-reset",
        "refused, 2025-06-15",
        "Mute times in force: nights.",
        "timeout <b>after</b> 10 s",
        "down for 14 min",
        "pending 4s of 30s",
        "2 further ones",
    ):
        assert sentence in text
