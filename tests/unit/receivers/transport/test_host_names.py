from __future__ import annotations

import pytest

from watchdog.receivers.transport.host_names import host_problem, tls_name

WANTED = "must be a host name or an address"


@pytest.mark.parametrize(
    "host",
    [
        "smtp.example.net",
        "smtp.example.net.",
        "localhost",
        "mail_relay-1",
        "192.0.2.25",
        "2001:db8::25",
        "fe80::1%eth0",
        "müller.example",
        "2852039166",
        "0xA9FEA9FE",
        "127.1",
    ],
)
def test_names_and_addresses_have_no_problem(host):
    assert host_problem(host) is None


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("smtp.example.net:587", f'{WANTED}, without a port: give "smtp.example.net"; give port = 587'),
        ("[2001:db8::25]:587", f'{WANTED}, without a port: give "2001:db8::25"; give port = 587'),
        ("[2001:db8::25]", f'{WANTED}, without brackets: give "2001:db8::25"'),
        ("smtp://smtp.example.net", f"{WANTED}, without a scheme such as smtp://"),
        ("smtp.example.net/x", WANTED),
        ("user@smtp.example.net", WANTED),
        ("smtp..example.net", WANTED),
        (".example.net", WANTED),
        ("-smtp.example.net", WANTED),
        ("smtp.example.net ", WANTED),
        ("smtp example", WANTED),
        ("192.0.2.256", WANTED),
        ("a" * 64 + ".example", WANTED),
        ("a." * 130 + "net", WANTED),
        ("{{ smtp_host }}", WANTED),
    ],
)
def test_everything_else_is_a_problem_with_its_remedy(host, problem):
    assert host_problem(host, takes_port=True) == problem


def test_tls_knows_no_final_dot():
    assert [tls_name(host) for host in ("mx.test", "mx.test.", "192.0.2.1")] == ["mx.test", "mx.test", "192.0.2.1"]
