from __future__ import annotations

import pytest

from watchdog.config.document import Document
from watchdog.receivers.transport.http_headers import headers_from_table


def read(**keys):
    document = Document("", keys, "watchdog.toml")
    found = headers_from_table(document.root)
    document.root.reject_unknown_keys()
    problems = [f"{problem.key}: {problem.message}" for problem in document.problems]
    return {name: value.reveal() for name, value in found.items()}, problems


def secret_file(folder, text):
    file = folder / "secret"
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


def test_headers_are_given_in_three_forms_of_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("TENANT", "blue team")
    headers = {"X-Team": "network", "X-Api-Key_file": secret_file(tmp_path, "key\n"), "X-Tenant_env": "TENANT"}
    assert read(headers=headers) == ({"X-Team": "network", "X-Api-Key": "key", "X-Tenant": "blue team"}, [])


def test_a_token_or_a_login_sets_the_authorization_header(tmp_path):
    assert read(bearer_token_file=secret_file(tmp_path, "abc")) == ({"Authorization": "Bearer abc"}, [])
    assert read(username="Aladdin", password="open sesame") == (
        {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},  # RFC 7617 §2
        [],
    )
    assert read(headers={"Authorization": "Splunk abc"}) == ({"Authorization": "Splunk abc"}, [])


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"headers": {"X-Bad": "a\r\nX-Forged: b"}}, "headers.X-Bad: must be printable ASCII on one line"),
        ({"headers": {"X-Bad": " a"}}, "headers.X-Bad: must be printable ASCII on one line"),
        ({"headers": {"X-Bad": 5}}, "headers.X-Bad: must be a text, not a number"),
        ({"headers": {"X-Bad": ""}}, "headers.X-Bad: must not be empty"),
        ({"headers": {"X Bad": "a"}}, 'headers."X Bad": not a valid header name'),
        ({"headers": {"Host": "a"}}, "headers.Host: is set by bpf-watchdog and cannot be configured"),
        (
            {"headers": {"content-length": "1"}},
            "headers.content-length: is set by bpf-watchdog and cannot be configured",
        ),
        (
            {"headers": {"X-Notification-ID": "1"}},
            "headers.X-Notification-ID: is set by bpf-watchdog and cannot be configured",
        ),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers.x-a: is a duplicate: header names ignore case"),
        ({"bearer_token": "a\nb"}, "bearer_token: must be printable ASCII on one line"),
        (
            {"bearer_token": "a", "username": "u", "password": "p"},
            "username: give only one of bearer_token, username and an Authorization header",
        ),
        (
            {"bearer_token": "a", "headers": {"authorization": "b"}},
            "headers: give only one of bearer_token, username and an Authorization header",
        ),
        ({"username": "u"}, "password: missing: give one of password, password_file, password_env"),
        ({"password": "p"}, "username: missing: required with password"),
    ],
)
def test_reports_problems_without_showing_a_value(keys, problem):
    [found] = read(**keys)[1]
    assert found.startswith(problem)
