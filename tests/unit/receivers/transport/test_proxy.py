from __future__ import annotations

import pytest

from watchdog.config.document import Document
from watchdog.receivers.transport.metadata_addresses import is_metadata_host
from watchdog.receivers.transport.proxy import Proxy, parse_proxy_url, proxy_from_table


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example", Proxy("proxy.example", 3_128, {})),
        ("http://[2001:db8::1]:8080/", Proxy("2001:db8::1", 8_080, {})),
        (
            "http://Aladdin:open%20sesame@proxy:1",
            Proxy("proxy", 1, {"Proxy-Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}),
        ),
    ],
)
def test_reads_the_url_of_a_proxy(text, proxy):
    assert parse_proxy_url(text) == proxy


@pytest.mark.parametrize(
    "text", ["proxy:3128", "https://proxy", "socks5://proxy", "http://", "http://p:0", "http://p:x", "http://p/path"]
)
def test_refuses_invalid_proxy_urls_without_showing_them(text):
    document = Document("", {"proxy": text}, "watchdog.toml")
    assert proxy_from_table(document.root) is None
    assert [problem.message for problem in document.problems] == ["write it like http://proxy.example.net:3128"]


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "::ffff:169.254.169.254",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "fd00:ec2::254%1",
        "fd00:ec2::254",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
    ],
)
def test_recognises_a_metadata_service_by_any_spelling_of_its_address_and_by_name(host):
    assert is_metadata_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "alerts.example", "::1", "169.254.example"])
def test_other_hosts_are_allowed(host):
    assert not is_metadata_host(host)
