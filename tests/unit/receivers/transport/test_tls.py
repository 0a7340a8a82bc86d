"""Certificates and keys are read with the configuration, and their problems are reported with it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from certificates import make_certificates
from watchdog.config.document import Document
from watchdog.receivers.transport.tls import tls_context_from_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Make an authority, and certificates for a server, a client and a stranger."""
    folder = make_certificates(tmp_path_factory.mktemp("certificates"))
    (folder / "both.pem").write_text((folder / "client.pem").read_text() + (folder / "client.key").read_text())
    (folder / "both.pem").chmod(0o600)
    return folder


def read(keys, **options):
    document = Document("", keys, "watchdog.toml", **options)
    context = tls_context_from_table(document.root)
    document.root.reject_unknown_keys()
    return context, [f"{problem.key}: {problem.message}" for problem in document.problems], document.notes


def test_with_a_ca_file_only_its_authorities_are_trusted(folder):
    context, problems, _ = read({"ca_file": f"{folder}/ca.pem"})
    assert problems == []
    assert [dict(part[0] for part in authority["subject"])["commonName"] for authority in context.get_ca_certs()] == [
        "our authority"
    ]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "keys",
    [
        {"cert_file": "client.pem", "key_file": "client.key"},
        {"cert_file": "both.pem"},
        {"cert_file": "client.pem", "key_env": "CLIENT_KEY"},
    ],
)
def test_a_key_is_in_the_file_of_the_certificate_or_another_file_or_the_environment(folder, keys, monkeypatch):
    monkeypatch.setenv("CLIENT_KEY", (folder / "client.key").read_text())
    assert read({key: text if key == "key_env" else f"{folder}/{text}" for key, text in keys.items()})[1] == []


def test_the_file_in_memory_is_closed(folder):
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    read({"cert_file": f"{folder}/client.pem", "key_file": f"{folder}/client.key"})
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"cert_file": "client.pem"}, "cert_file: contains no private key: set key_file too"),
        (
            {"cert_file": "client.pem", "key_file": "stranger.key"},
            "cert_file: certificate and key do not match, or the key has a passphrase",
        ),
        ({"cert_file": "client.pem", "key_file": "ca.pem"}, "key_file: '"),
        ({"key_file": "client.key"}, "key_file: only used together with cert_file"),
        ({"ca_file": "client.key"}, "ca_file: contains no certificates in PEM form"),
    ],
)
def test_reports_problems_by_key(folder, keys, problem):
    [found] = read({key: f"{folder}/{name}" for key, name in keys.items()})[1]
    assert found.startswith(problem)
    assert "PRIVATE" not in found


def test_refuses_a_private_key_that_everyone_can_read(folder, tmp_path):
    open_file = tmp_path / "both.pem"
    open_file.write_text((folder / "both.pem").read_text())
    open_file.chmod(0o644)
    [found] = read({"cert_file": str(open_file)})[1]
    assert found.startswith(f"cert_file: the private key in '{open_file}' is open to everyone")


def test_a_key_with_a_passphrase_is_a_problem_and_not_asked_on_the_terminal(folder, tmp_path, monkeypatch):
    encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n"
    monkeypatch.setenv("CLIENT_KEY", encrypted)
    [found] = read({"cert_file": f"{folder}/client.pem", "key_env": "CLIENT_KEY"})[1]
    assert found == "cert_file: certificate and key do not match, or the key has a passphrase"


def test_missing_files_are_notes_if_secrets_are_not_required():
    _, problems, notes = read({"ca_file": "/none/ca.pem"}, require_secrets=False)
    assert (problems, [note.key for note in notes]) == ([], ["ca_file"])
