"""Files of secrets and certificates that are replaced while the daemon runs."""

from __future__ import annotations

import tomllib

import pytest

from certificates import make_certificates
from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.errors import ConfigError
from watchdog.receivers.registry import build_receivers


def build(receiver_type, keys):
    text = f'[[receiver]]\nname = "r"\ntype = "{receiver_type}"\n{keys}\n'
    return build_receivers(read_settings(Document(text, tomllib.loads(text), "watchdog.toml")))["r"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secret(tmp_path):
    def write(text, name="secret"):
        path = tmp_path / f"{name}.new"
        path.write_text(text)
        path.chmod(0o600)
        return path.rename(tmp_path / name)

    return write


KEY = "R" + "0123456789abcde" * 2 + "f"
KINDS = {
    "bearer_token": ("webhook", 'url = "http://h.example/"\nbearer_token_file = "{}"', "token"),
    "url": ("webhook", 'url_file = "{}"', "http://h.example/"),
    "hmac_secret": ("webhook", 'url = "http://h.example/"\nhmac_secret_file = "{}"', "s3cret"),
    "header": ("webhook", 'url = "http://h.example/"\n[receiver.headers]\nX-Api-Key_file = "{}"', "key"),
    "proxy": ("webhook", 'url = "http://h.example/"\nproxy_file = "{}"', "http://p.example:3128"),
    "password": ("email", 'host = "h"\nfrom = "a@b"\nto = ["a@b"]\nusername = "u"\npassword_file = "{}"', "word"),
    "webhook_url": ("slack", 'webhook_url_file = "{}"', "http://h.example/"),
    "bot_token": ("slack", 'channel = "C1"\nbot_token_file = "{}"', "xoxb-1"),
    "routing_key": ("pagerduty", 'routing_key_file = "{}"', KEY),
    "urls": ("alertmanager", 'urls_file = "{}"', "http://h.example/"),
}


@pytest.mark.parametrize(("receiver_type", "keys", "text"), KINDS.values(), ids=KINDS)
def test_every_file_of_a_secret_is_watched(secret, receiver_type, keys, text):
    path = secret(text)
    receiver = build(receiver_type, keys.format(path))
    assert not receiver.source.has_changed()
    secret(text)
    assert receiver.source.has_changed()
    renewed = receiver.source.build()
    assert not renewed.source.has_changed()
    path.unlink()
    assert renewed.source.has_changed()
    with pytest.raises(ConfigError, match="No such file"):
        renewed.source.build()


@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
def test_certificates_and_their_keys_are_watched(certificates, tmp_path, key):
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    for name in files.values():
        (tmp_path / name).write_bytes((certificates / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    keys = "\n".join(f'{name} = "{tmp_path / file}"' for name, file in files.items())
    receiver = build("webhook", f'url = "https://h.example/"\n{keys}')
    assert not receiver.source.has_changed()
    path = tmp_path / files[key]
    path.write_bytes(path.read_bytes() + b"\n")
    assert receiver.source.has_changed()
    assert not receiver.source.build().source.has_changed()


def test_a_receiver_without_files_has_none():
    receiver = build("webhook", 'url = "http://h.example/"')
    assert receiver.source is None
