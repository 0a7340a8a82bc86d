from __future__ import annotations

import pytest

from watchdog.config.document import Document
from watchdog.config.placeholders import placeholder_problem

PLACEHOLDERS = [
    "{{ vault_token }}",
    "token-{{x}}",
    "{% raw %}x{% endraw %}",
    "<%= @token %>",
    "${SLACK_TOKEN}",
    "https://hooks.slack.com/services/${HOOK}",
    "$(SLACK_TOKEN)",
    "$SLACK_TOKEN",
    "@SLACK_TOKEN@",
    "__SLACK_TOKEN__",
    "[INSERT TOKEN]",
    "<token>",
    "<your token here>",
    "https://hc-ping.com/<uuid>",
    "https://<user>:<password>@hooks.example.net/",
    "CHANGEME",
    "changeme!",
    "change-me",
    "Change_This",
    "REPLACE_ME",
    "replace-with-your-token",
    "your-api-key",
    "YOUR_TOKEN_HERE",
    "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    "https://hc-ping.com/your-uuid-here",
    "xxxxxxxx",
    "********",
    "...",
    "TODO",
    "null",
    "$ANSIBLE_VAULT;1.1;AES256\n6638",
    "ENC[AES256_GCM,data:x,type:str]",
    "-----BEGIN PGP MESSAGE-----",
    "age-encryption.org/v1",
    "op://vault/item/field",
    "vault:secret/data/slack#token",
    "arn:aws:secretsmanager:eu-west-1:1:secret:x",
    "<!DOCTYPE html><html></html>",
]
SECRETS = [
    "s3cret",
    "hunter2",
    "secret",
    "xoxb-123456789012-abcdefghijkl",
    "R0123456789abcde0123456789abcdef",
    "Tr0ub4dor&3<x>",
    "a{b}c$d",
    "$2y$10$abcdefghijklmnopqrstuv",
    "p@ss@word",
    "hidden__value__x",
    "changemetomorrow7",
    "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx",
    "https://hc-ping.com/5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278",
    "https://hooks.example.net/todo/123?x=y",
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_recognised_and_not_repeated(text):
    problem = placeholder_problem(text)
    assert problem is not None
    assert problem.startswith("is ")
    assert text not in problem


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_no_placeholder(text):
    assert placeholder_problem(text) is None


@pytest.mark.parametrize("form", ["key", "key_file", "key_env", "key_credential"])
def test_a_placeholder_is_refused_in_every_form_of_a_secret(form, tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("\ufeff{{ token }}\n")
    path.chmod(0o600)
    monkeypatch.setenv("TOKEN", "{{ token }}")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    text = {"key": "{{ token }}", "key_file": str(path), "key_env": "TOKEN", "key_credential": "token"}[form]
    document = Document("", {form: text}, "watchdog.toml")
    assert document.root.secret("key") is None
    [problem] = document.problems
    assert (problem.key, problem.message.endswith("is an unfilled template: it contains {{ … }}")) == (form, True)


@pytest.mark.parametrize("content", [" \n", "\ufeff", "a\x07b", "\x1b[0mtoken"])
def test_an_empty_or_unprintable_content_is_refused(content, tmp_path):
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(0o600)
    document = Document("", {"key_file": str(path)}, "watchdog.toml")
    assert document.root.secret("key") is None
    assert document.problems
