"""The status page: one HTML document from a `StatusView`, without scripts and without parts from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from watchdog.config.counts import format_count
from watchdog.receivers.render.evidence_text import utc_text
from watchdog.web.markup import Markup, document, element, join, name, style_sheet
from watchdog.web.page_sections import SECTIONS
from watchdog.web.page_style import CSS, HEADERS
from watchdog.web.status_view import StatusView
from watchdog.web.web_page import WebPage, WebRequest

REFRESH_SECONDS: Final = 30
MIN_AGE_SECONDS: Final = 3.0
"""A page is made at most once in this time, however many ask."""

_PAUSE_SECONDS = 0.000_2  # between two parts, in which a tick gets the interpreter
_REFRESH_QUERY = f"refresh={REFRESH_SECONDS}"


class StatusPage:
    """Makes the page. Use it from one thread."""

    def __init__(self, read: Callable[[], StatusView]) -> None:
        """Call `read` for each page that is made."""
        self._read = read
        self._made: float | None = None
        self._pages: dict[bool, WebPage] = {}

    def page(self, request: WebRequest) -> WebPage:
        """Return the page, which loads itself again where the query asks for it."""
        refreshes = request.query == _REFRESH_QUERY
        now = time.monotonic()
        if self._made is None or now - self._made >= MIN_AGE_SECONDS:
            view = self._read()
            body = _body(view)
            self._pages = {one: _page(view, body, refreshes=one) for one in (False, True)}
            self._made = now
        return self._pages[refreshes]


def _page(view: StatusView, body: Markup, *, refreshes: bool) -> WebPage:
    alerts = view.status.alerts
    title = f"{alerts.critical} critical, {format_count(alerts.warning, 'warning')}: {view.status.host} · bpf-watchdog"
    root = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", title),
            style_sheet(CSS),
        ),
        element("body", _skip_link(), _header(view, refreshes=refreshes), body, _footer(view)),
        lang="en",
    )
    refresh = (("Refresh", str(REFRESH_SECONDS)),) if refreshes else ()
    return WebPage("text/html; charset=utf-8", document(root), (*HEADERS, *refresh))


def _skip_link() -> Markup:
    return element("a", "Skip to the alerts", href="#alerts", class_="skip")


def _header(view: StatusView, *, refreshes: bool) -> Markup:
    if refreshes:
        link = element("a", "stop", href="/")
        refresh = join((f"This page loads itself again every {REFRESH_SECONDS} s: ", link))
    else:
        refresh = element("a", f"Load again every {REFRESH_SECONDS} s", href=f"/?{_REFRESH_QUERY}")
    links = [element("li", element("a", section.title, href=f"#{section.anchor}")) for section in SECTIONS]
    problems = [
        element("li", element("span", "▲ problem: ", class_="sign critical"), one) for one in view.status.problems
    ]
    return element(
        "header",
        element("h1", "bpf-watchdog on ", name(view.status.host)),
        _summary(view),
        element("ul", *problems) if problems else None,
        element("p", f"As of {utc_text(view.wall)}. ", element("span", refresh, class_="refresh"), class_="muted"),
        element("nav", element("ul", *links), aria_label="Sections"),
    )


def _summary(view: StatusView) -> Markup:
    alerts = view.status.alerts
    if alerts.critical:
        sign = element("span", "▲ ", class_="sign critical", aria_hidden="true")
    elif alerts.warning:
        sign = element("span", "◆ ", class_="sign warning", aria_hidden="true")
    else:
        sign = element("span", "● ", class_="sign ok", aria_hidden="true")
    warnings = format_count(alerts.warning, "warning")
    text = f"{alerts.critical} critical, {warnings} firing; {alerts.pending} pending"
    return element(
        "p", sign, text if alerts.critical or alerts.warning else f"No alert fires; {alerts.pending} pending"
    )


def _body(view: StatusView) -> Markup:
    parts = []
    for section in SECTIONS:
        content = []
        for part in section.render(view):
            content.append(part)
            time.sleep(_PAUSE_SECONDS)
        heading = element("h2", section.title, id=f"{section.anchor}-title")
        parts.append(
            element("section", heading, *content, id=section.anchor, aria_labelledby=f"{section.anchor}-title")
        )
    return element("main", *parts)


def _footer(view: StatusView) -> Markup:
    status = view.status
    text = f"bpf-watchdog {status.version}, pid {status.pid}, Linux {status.kernel}. Metrics for Prometheus: "
    return element("footer", element("p", text, element("a", "/metrics", href="/metrics")), class_="muted")
