from __future__ import annotations

import time

import pytest

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.transport import http
from watchdog.receivers.transport.http_response import parse_retry_after
from watchdog.receivers.transport.metadata_addresses import is_metadata_address

NOW = 1_750_000_000.0  # Sun, 15 Jun 2025 15:06:40 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("30", 30.0),
        (str(10**12), 1e12),
        ("Sun, 15 Jun 2025 15:07:10 GMT", 30.0),
        ("Sunday, 15-Jun-25 15:07:10 GMT", 30.0),
        ("Sun, 15 Jun 2025 14:00:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Jun 2025 15:07:10 GMT", None),
        ("9" * 5_000, None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_none(text, seconds):
    assert parse_retry_after(text, NOW) == seconds


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
@pytest.mark.parametrize(
    "text",
    [
        "Sun, 15 Jun 2025 15:07:10 GMT",
        "Sunday, 15-Jun-25 15:07:10 GMT",
        "Sun Jun 15 15:07:10 2025",
        "Sun, 15 Jun 2025 15:07:10 -0000",
        "Sun, 15 Jun 2025 15:07:10",
        "Sun, 15 Jun 2025 17:07:10 +0200",
    ],
)
def test_a_date_is_utc_whatever_the_zone_of_the_host(monkeypatch, zone, text):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert parse_retry_after(text, NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("status", "reason", "retryable", "wait"),
    [
        (301, "redirect", False, None),
        (307, "redirect", False, None),
        (400, "client_error", False, None),
        (401, "auth", False, None),
        (403, "auth", False, None),
        (404, "client_error", False, None),
        (408, "client_error", True, 7.0),
        (410, "client_error", False, None),
        (425, "client_error", True, 7.0),
        (429, "rate_limited", True, 7.0),
        (500, "server_error", True, 7.0),
        (503, "server_error", True, 7.0),
    ],
)
def test_the_status_decides_whether_to_retry(status, reason, retryable, wait):
    with pytest.raises(DeliveryError, match=rf"^alerts\.example answered {status}") as caught:
        http.raise_for_status(http.HttpResponse(status, b"", 7.0), "alerts.example")
    error = caught.value
    assert (error.reason, error.retryable, error.retry_after_seconds) == (reason, retryable, wait)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_success(status):
    http.raise_for_status(http.HttpResponse(status, b"", None), "alerts.example")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "febf::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "::a9fe:a9fe",
        "::ffff:0:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",  # RFC 6052 §2.2: a prefix of 48 bits,
        "64:ff9b:1:aaa9:fe:a9fe::",  # of 56
        "64:ff9b:1:aaaa:a9:fea9:fe00:0",  # and of 64
        "64:ff9b:1:aaaa:0:0:a83f:8110",
        "64:ff9b::6464:64c8",
        "2002:a9fe:a9fe::1",
        "100.96.0.96",
        "100.80.80.80",
        "2001:db8::5efe:a9fe:a9fe",  # RFC 5214, ISATAP
        "2001:db8::200:5efe:6464:64c8",
        "2001:0:c000:201::5601:5601",  # RFC 4380, Teredo
    ],
)
def test_recognises_link_local_and_metadata_addresses(address):
    assert is_metadata_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "192.168.1.1",
        "fd00::1",
        "192.0.2.1",
        "::ffff:10.0.0.1",
        "fd00:ec2::253",
        "fd20:ce::253",
        "100.100.100.201",
        "168.63.129.17",
        "192.0.0.191",
        "64:ff9b::c000:201",
        "64:ff9b:1::c000:201",
        "64:ff9b:2::a9fe:a9fe",
        "2002:c000:201::1",
        "2001:db8::5efe:c000:201",
        "2001:db8::5eff:a9fe:a9fe",
        "2001:0:a9fe:a9fe::3fff:fdfe",
        "100.96.0.97",
    ],
)
def test_loopback_private_and_public_addresses_are_allowed(address):
    assert not is_metadata_address(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "alerts.example/in",
        "ftp://alerts.example/",
        "file:///etc/passwd",
        "http://",
        "https:///x",
        "http://h:99999/",
        "http://h:0/",
        "http://h\udcff/",
        "http://h h/",
        "http://[::1/",
        "https://alerts.example/in\nhttps://alerts.example/out",
        "https://alerts.example/in ",
    ],
)
def test_refuses_invalid_http_urls_without_showing_them(url):
    with pytest.raises(ValueError) as caught:
        http.Endpoint(Secret(url))
    assert str(caught.value) in {
        "not a URL",
        "not a URL: it must be one line without spaces",
        "must begin with https:// or http:// and a host name",
    }


def test_reads_the_host_of_a_url_with_all_parts():
    endpoint = http.Endpoint(Secret("https://user:password@Alerts.Example:8443/in?token=x#y"))
    assert endpoint.host == "alerts.example"
