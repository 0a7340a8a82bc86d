"""The table `[web]`."""

from __future__ import annotations

import tomllib

import pytest

from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.config.web_settings import DEFAULT_MAX_SERIES, WebSettings


def read(text):
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    return read_settings(document).values.web, [str(problem) for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ('listen = "127.0.0.1:9464"', WebSettings("127.0.0.1", 9464)),
        ('listen = "127.8.0.1:1"', WebSettings("127.8.0.1", 1)),
        ('listen = "[::1]:65535"', WebSettings("::1", 65_535)),
        ('listen = "unix:/run/bpf-watchdog/metrics.sock"', WebSettings("/run/bpf-watchdog/metrics.sock", None)),
        (
            'listen = "0.0.0.0:9464"\nallow_remote = true',
            WebSettings("0.0.0.0", 9464, allow_remote=True, status_page=False),
        ),
        (
            'listen = "0.0.0.0:9464"\nallow_remote = true\nstatus_page = true',
            WebSettings("0.0.0.0", 9464, allow_remote=True, status_page=True),
        ),
        ('listen = "127.0.0.1:9464"\nstatus_page = false', WebSettings("127.0.0.1", 9464, status_page=False)),
        (
            'listen = "127.0.0.1:9464"\nhosts = ["Metrics.example.net"]\nmax_series = 50',
            WebSettings("127.0.0.1", 9464, hosts=("metrics.example.net",), max_series=50),
        ),
        ('listen = "127.0.0.1:9464"\nbpf_stats = true', WebSettings("127.0.0.1", 9464, bpf_stats=True)),
    ],
)
def test_addresses_and_bounds(text, settings):
    assert read(f"[web]\n{text}\n") == (settings, [])


def test_without_an_address_nothing_is_served():
    assert read("") == (None, [])
    assert read("[web]\n") == (None, [])
    assert read('[web]\nlisten = ""\n') == (None, [])
    assert DEFAULT_MAX_SERIES == 200


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('listen = "0.0.0.0:9464"', "allow_remote = true"),
        ('listen = "[::]:9464"', "allow_remote = true"),
        ('listen = "192.0.2.1:9464"', "allow_remote = true"),
        ('listen = "9464"', "must be an IP address with a port"),
        ('listen = ":9464"', "must be an IP address with a port"),
        ('listen = "localhost:9464"', "must be an IP address with a port"),
        ('listen = "127.0.0.1"', "must be an IP address with a port"),
        ('listen = "127.0.0.1:0"', "must be an IP address with a port"),
        ('listen = "127.0.0.1:65536"', "must be an IP address with a port"),
        ('listen = "127.0.0.256:9464"', "must be an IP address with a port"),
        ('listen = "::1:9464"', "must be an IP address with a port"),
        ('listen = "unix:metrics.sock"', "must be an IP address with a port"),
        ("listen = 9464", "must be a text"),
        ("max_series = 50", "needs listen"),
        ("status_page = true", "needs listen"),
        ('listen = "127.0.0.1:9464"\nstatus_page = 1', "must be true or false"),
        ("bpf_stats = true", "needs listen"),
        ('listen = "127.0.0.1:9464"\nbpf_stats = 1', "must be"),
        ("allow_remote = true", "needs listen"),
        ('listen = "127.0.0.1:9464"\nmax_series = 0', "max_series"),
        ('listen = "127.0.0.1:9464"\nmax_series = 1_000_000', "max_series"),
        ('listen = "127.0.0.1:9464"\nhosts = ["a:1"]', "must be a host name without port"),
        ('listen = "127.0.0.1:9464"\nhost = "a"', 'did you mean "hosts"'),
    ],
)
def test_problems(text, problem):
    _, problems = read(f"[web]\n{text}\n")
    assert len(problems) == 1, problems
    assert problem in problems[0]
