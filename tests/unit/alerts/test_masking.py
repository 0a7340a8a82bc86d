"""Masking of secrets in command lines."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.alerts.masking import MASK, mask_secrets

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "line",
    [
        f"mysqld --user=mysql --password={SECRET}",
        f"backup --password {SECRET} -v",
        f"env DB_PASSWORD={SECRET} PGPASSWORD={SECRET} API_KEY={SECRET} backup",
        f"curl https://bob:{SECRET}@example.net/path?token={SECRET}&page=2",
        f"curl -u bob:{SECRET} https://example.net/",
        f"curl --user=bob:{SECRET} https://example.net/",
        f"mysql -p{SECRET} -h db",
        f"sshpass -p {SECRET} ssh host",
        f"redis-cli -a {SECRET} ping",
        f"java -Dspring.datasource.password={SECRET} -Dkeystore.pass={SECRET}",
        f"agent --client-secret={SECRET} --auth-token {SECRET} --access_key_id {SECRET}",
        f"psql postgresql://bob:{SECRET}@db/sales?sslpassword={SECRET}",
        f"notify https://hooks.slack.com/services/T000/B000/{SECRET}",
        "aws-tool AKIAHUNTER2HUNTER2HU",
        "slack-tool xoxb-hunter2-hunter2",
    ],
)
def test_obvious_secrets_are_masked(line):
    shown = mask_secrets(line.split(" "))
    assert "hunter2" not in shown.lower()
    assert MASK in shown
    assert shown.split(" ")[0] == line.split(" ")[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["curl", "-H", f"Authorization: Bearer {SECRET}", "https://example.net/"],
        ["curl", "-H", f"X-Api-Key: {SECRET}", "-H", f"Cookie: a={SECRET}; b={SECRET}"],
        ["curl", "-d", f'{{"password": "{SECRET} {SECRET}", "page": 1}}'],
        [f"worker: connects with --token={SECRET} --secret {SECRET} to 10.0.0.1"],  # a process title set by the program
    ],
)
def test_secrets_within_one_argument_are_masked(arguments):
    assert SECRET not in mask_secrets(arguments)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["curl", "-u", "bob:two words", "x"], "curl -u bob:*** x"),
        (["curl", "--user=bob:two words", "x"], "curl --user=bob:*** x"),
        (["backup", "--password=two words", "-v"], "backup --password=*** -v"),
        (["backup", "--password", "two words", "-v"], "backup --password *** -v"),
        (["env", "DB_PASSWORD=two\nlines", "backup"], "env DB_PASSWORD=*** backup"),
        (["sh", "-c", "TOKEN=word backup --all"], "sh -c TOKEN=*** backup --all"),
    ],
)
def test_a_secret_with_spaces_is_masked_to_its_end(arguments, shown):
    assert mask_secrets(arguments) == shown


@pytest.mark.parametrize(
    "line",
    [
        "/usr/sbin/nginx -g daemon off;",
        "ssh -p 2222 host",
        "passwd root",
        "tool --author=me --passive --tokenizer=bpe --keyfile /etc/key",
        "curl -u bob https://example.net/path?page=2",
    ],
)
def test_text_that_is_not_a_secret_is_not_changed(line):
    assert mask_secrets(line.split(" ")) == line


@settings(deadline=None)
@given(st.lists(st.text(max_size=200), max_size=20))
def test_any_command_line_can_be_masked(arguments):
    mask_secrets(arguments)


@pytest.mark.parametrize(
    "piece", ["a", "-a", "--password", "token=", "a.b-", "://@", "xox", "auth", '"', "pass ", "eyJ", "-u ", "basic "]
)
def test_no_command_line_takes_long_to_mask(piece):
    line = piece * (1_024 // len(piece))
    taken = []
    for _ in range(3):
        began = time.thread_time()
        mask_secrets([line, *line.split(" ")])
        taken.append(time.thread_time() - began)
    assert min(taken) < 0.05
