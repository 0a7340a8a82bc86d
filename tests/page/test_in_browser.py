"""The status page in a headless Chromium, checked by axe-core; `make test-page` runs it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
from pathlib import Path

import pytest
from headless_browser import HeadlessBrowser
from status_views import hostile_view, make_status_view

from watchdog.config.web_settings import WebSettings
from watchdog.web.status_page import StatusPage
from watchdog.web.web_server import WebServer

AXE = Path(importlib.util.find_spec("axe_playwright_python").origin).with_name("axe.min.js")
SIZES = [(360, 780), (1280, 900)]
VIEWS = {"hostile": hostile_view, "quiet": make_status_view}
TAB = 9
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with HeadlessBrowser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def urls():
    """Return the URL of each view, at a real server of its own."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name, view in VIEWS.items():
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            server = WebServer(WebSettings("127.0.0.1", port), tuple, {"/": StatusPage(view).page})
            server.start()
            stack.callback(server.stop)
            found[name] = f"http://127.0.0.1:{port}/"
        yield found


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_axe_finds_no_violation(browser, urls, view, dark, width, height):
    browser.open(urls[view], width, height, dark=dark)
    browser.evaluate(AXE.read_text(encoding="utf-8"))
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    result = browser.evaluate(f"axe.run({json.dumps(options)})")
    assert len(result["passes"]) > 20
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in result["violations"]] == []


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_page_is_never_wider_than_the_window(browser, urls, width, height):
    browser.open(urls["hostile"], width, height, dark=False)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_runs_and_nothing_else_is_loaded(browser, urls):
    browser.open(urls["hostile"], 1280, 900, dark=False)
    assert [url for url in browser.requests() if url != urls["hostile"]] == []
    assert browser.problems() == []
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("getComputedStyle(document.querySelector('article')).borderLeftWidth") == "5px"
    # The policy holds: a script that had got into the page would not run.
    browser.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert browser.evaluate("window.ran") is None


def test_every_stop_of_the_keyboard_can_be_seen(browser, urls):
    browser.open(urls["hostile"], 1280, 900, dark=False)
    stops = browser.evaluate("document.querySelectorAll('a, summary, [tabindex]').length")
    seen = set()
    for _ in range(stops):
        browser.press("Tab", TAB)
        outline, box = browser.evaluate(
            "(one => [getComputedStyle(one).outlineStyle, JSON.stringify(one.getBoundingClientRect())])"
            "(document.activeElement)"
        )
        assert outline == "solid"
        seen.add(browser.evaluate("document.activeElement.outerHTML.slice(0, 200)") + box)
    assert len(seen) > stops / 2


def test_it_loads_itself_again_only_where_asked(browser, urls):
    browser.open(urls["quiet"], 1280, 900, dark=False)
    assert browser.evaluate("document.querySelector('.refresh a').getAttribute('href')") == "/?refresh=30"
    browser.open(urls["quiet"] + "?refresh=30", 1280, 900, dark=False)
    assert browser.evaluate("document.querySelector('.refresh a').getAttribute('href')") == "/"
