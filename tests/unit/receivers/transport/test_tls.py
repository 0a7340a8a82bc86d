"""Certificates and keys are read when the configuration is, and what is wrong with them is told then."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from certificates import make_certificates
from watchdog.config.document import Document
from watchdog.receivers.transport.tls import tls_context_from_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Make an authority, a server, a client and a stranger."""
    made = make_certificates(tmp_path_factory.mktemp("certificates"))
    (made / "both.pem").write_text((made / "client.pem").read_text() + (made / "client.key").read_text())
    (made / "both.pem").chmod(0o600)
    return made


def read(keys, **options):
    document = Document("", keys, "watchdog.toml", **options)
    context = tls_context_from_table(document.root)
    document.root.reject_unknown_keys()
    return context, [f"{problem.key}: {problem.message}" for problem in document.problems], document.notes


def test_an_authority_of_ones_own_is_the_only_one(folder):
    context, problems, _ = read({"ca_file": f"{folder}/ca.pem"})
    assert problems == []
    assert [dict(part[0] for part in each["subject"])["commonName"] for each in context.get_ca_certs()] == [
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
def test_a_key_stands_with_its_certificate_or_apart_or_in_the_environment(folder, keys, monkeypatch):
    monkeypatch.setenv("CLIENT_KEY", (folder / "client.key").read_text())
    assert read({key: text if key == "key_env" else f"{folder}/{text}" for key, text in keys.items()})[1] == []


def test_nothing_is_left_of_the_file_in_memory(folder):
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
def test_what_is_wrong_is_told_by_its_key(folder, keys, problem):
    [told] = read({key: f"{folder}/{name}" for key, name in keys.items()})[1]
    assert told.startswith(problem)
    assert "PRIVATE" not in told


def test_a_private_key_that_everyone_can_read_is_refused(folder, tmp_path):
    careless = tmp_path / "both.pem"
    careless.write_text((folder / "both.pem").read_text())
    careless.chmod(0o644)
    [told] = read({"cert_file": str(careless)})[1]
    assert told.startswith(f"cert_file: the private key in '{careless}' is open to everyone")


def test_a_key_with_a_passphrase_asks_nobody(folder, tmp_path, monkeypatch):
    encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n"
    monkeypatch.setenv("CLIENT_KEY", encrypted)
    [told] = read({"cert_file": f"{folder}/client.pem", "key_env": "CLIENT_KEY"})[1]
    assert told == "cert_file: certificate and key do not match, or the key has a passphrase"


def test_files_of_the_daemons_user_are_notes_where_secrets_are_not_needed():
    _, problems, notes = read({"ca_file": "/none/ca.pem"}, require_secrets=False)
    assert (problems, [note.key for note in notes]) == ([], ["ca_file"])
