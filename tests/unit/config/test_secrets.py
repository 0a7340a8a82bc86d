import copy
import dataclasses
import json
import os
import pickle
import pprint
import pwd
import traceback

import pytest

from watchdog.config.permissions import ACCOUNT
from watchdog.config.secrets import (
    Secret,
    SecretError,
    secret_from_credential,
    secret_from_environment,
    secret_from_file,
)

GROUP = pwd.getpwnam(ACCOUNT).pw_gid
SHARED_GROUP = pwd.getpwnam("nobody").pw_gid  # a group with another name than the account


def test_only_reveal_returns_the_text():
    secret = Secret("hunter2")
    shown = (str(secret), repr(secret), f"{secret}", f"{secret:>10}", f"{[secret]}")
    assert shown == ("<secret>", "<secret>", "<secret>", "  <secret>", "[<secret>]")
    assert secret.reveal() == "hunter2"
    assert not hasattr(secret, "__dict__")


@dataclasses.dataclass
class Holder:
    key: Secret
    local: str = ""


def crash(secret):
    held = [secret, {"key": secret}]
    return held[2]


def test_the_text_appears_in_no_traceback_and_in_no_repr_of_a_container():
    secret = Secret("hunter2")
    try:
        crash(secret)
    except IndexError as error:
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "secret = <secret>" in told
    shown = told + pprint.pformat(Holder(secret)) + repr(dataclasses.asdict(Holder(secret)))
    assert "hunter2" not in shown


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_is_the_secret_itself(copied):
    secret = Secret("hunter2")
    assert copied(secret) is secret


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_is_never_written_down_by_pickle(protocol):
    for held in (Secret("hunter2"), [Holder(Secret("hunter2"))]):
        with pytest.raises(TypeError, match=r"^a secret cannot be serialized$"):
            pickle.dumps(held, protocol)


def test_is_nothing_for_json_vars_or_getstate():
    for tell in (json.dumps, vars, lambda secret: secret.__getstate__()):
        with pytest.raises(TypeError) as caught:
            tell(Secret("hunter2"))
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"x", "x"),
        (b"x\n", "x"),
        (b"x\r\n", "x"),
        (b"x\n\n", "x"),
        (b" x \t\n", "x"),
        (b"\xef\xbb\xbfx\n", "x"),
        ("\u200bx\u00a0\n".encode(), "x"),
        (b"x\x00", "x"),
        (b"a b\nc\n", "a b\nc"),
        ("ü".encode(), "ü"),
    ],
)
def test_ignores_what_surrounds_the_secret_in_its_file(tmp_path, content, text):
    path = tmp_path / "s"
    path.write_bytes(content)
    path.chmod(0o600)
    assert secret_from_file(str(path)).reveal() == text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "is not UTF-8 text"), (b"x" * 65_537, "is over 65536 bytes")],
)
def test_refuses_content_that_is_not_a_secret(tmp_path, content, message):
    path = tmp_path / "s"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretError, match=message) as caught:
        secret_from_file(str(path))
    assert not caught.value.is_unavailable


def test_does_not_wait_for_a_fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path, 0o600)
    with pytest.raises(SecretError, match="is not a regular file"):
        secret_from_file(str(path))


@pytest.mark.parametrize("path", ["relative", "~/x", ""])
def test_wants_absolute_paths(path):
    with pytest.raises(SecretError, match="must be an absolute path"):
        secret_from_file(path)


def test_refuses_a_path_that_no_file_can_have():
    with pytest.raises(SecretError, match="not a path"):
        secret_from_file("/a\0b")


def test_an_empty_variable_is_no_secret(monkeypatch):
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(SecretError, match="'EMPTY' is not set"):
        secret_from_environment("EMPTY")


SLACK = "https://hooks.slack.example/services/T00/B00/hunter2"


@pytest.mark.parametrize("read", [secret_from_file, secret_from_environment, secret_from_credential])
@pytest.mark.parametrize("secret", [SLACK, "hunter2-0123456789abcdef-0123456789abcdef"])
def test_a_secret_in_place_of_its_name_is_not_shown(read, secret, monkeypatch, tmp_path):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(SecretError) as caught:
        read(secret)
    assert "hunter2" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ access to the file


@pytest.fixture
def secret_file(tmp_path):
    def make(mode, group=0, name="s"):
        path = tmp_path / name
        path.write_text("hunter2")
        os.chown(path, 0, group)
        path.chmod(mode)
        return path

    return make


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owners_alone_is_taken(secret_file, mode):
    assert secret_from_file(str(secret_file(mode))).reveal() == "hunter2"


@pytest.mark.parametrize("mode", [0o640, 0o440])
def test_a_file_that_the_daemons_own_group_may_read_is_taken_so_that_a_reload_can_read_roots_files(secret_file, mode):
    assert secret_from_file(str(secret_file(mode, GROUP))).reveal() == "hunter2"


@pytest.mark.parametrize(
    ("mode", "group", "others"),
    [
        (0o644, GROUP, "everyone on this host"),
        (0o604, 0, "everyone on this host"),
        (0o602, 0, "everyone on this host"),
        (0o640, 0, "the group root"),
        (0o660, GROUP, f"the group {ACCOUNT}"),
        (0o620, 0, "the group root"),
        (0o640, SHARED_GROUP, "the group nogroup"),
        (0o640, 987_654, "the group 987654"),
    ],
)
def test_a_file_that_others_can_get_at_is_refused_with_the_remedy(secret_file, mode, group, others):
    path = secret_file(mode, group)
    with pytest.raises(SecretError) as caught:
        secret_from_file(str(path))
    assert str(caught.value) == f"'{path}' is open to {others}: chown {ACCOUNT} {path} && chmod 600 {path}"
    assert not caught.value.is_unavailable


def test_the_remedy_is_safe_to_paste(secret_file):
    path = secret_file(0o644, name="my secret; reboot")
    with pytest.raises(SecretError, match=r"chmod 600 '/[^']*/my secret; reboot'$"):
        secret_from_file(str(path))


# -------------------------------------------------------------------------------------------------- systemd credentials


def test_a_credential_is_read_from_the_services_folder_for_every_access_list(secret_file, monkeypatch):
    path = secret_file(0o440, name="hook.url")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    assert secret_from_credential("hook.url").reveal() == "hunter2"


@pytest.mark.parametrize("name", ["", "../s", "/s", ".s", "a/b", "a b", "a" * 41])
def test_a_credential_is_named_and_not_a_path(secret_file, monkeypatch, name):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret_file(0o600).parent))
    with pytest.raises(SecretError, match="must be the name of a credential"):
        secret_from_credential(name)


def test_a_credential_that_the_unit_does_not_pass_is_reported_with_its_path(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(SecretError, match=f"cannot read '{tmp_path}/hook': No such file or directory") as caught:
        secret_from_credential("hook")
    assert caught.value.is_unavailable


def test_outside_of_a_service_there_are_no_credentials(monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretError, match=r"add LoadCredential=hook:/path to the unit$") as caught:
        secret_from_credential("hook")
    assert caught.value.is_unavailable
