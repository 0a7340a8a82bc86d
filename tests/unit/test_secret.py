import os

import pytest

from watchdog.secret import Secret, SecretError, secret_from_environment, secret_from_file


def test_shows_itself_to_nobody_but_reveal():
    secret = Secret("hunter2")
    shown = (str(secret), repr(secret), f"{secret}", f"{secret:>10}", f"{[secret]}")
    assert shown == ("<secret>", "<secret>", "<secret>", "  <secret>", "[<secret>]")
    assert secret.reveal() == "hunter2"
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"x", "x"), (b"x\n", "x"), (b"x\r\n", "x"), (b"x\n\n", "x\n"), (b" x ", " x "), ("ü".encode(), "ü")],
)
def test_takes_one_newline_off_the_end_of_a_file(tmp_path, content, text):
    path = tmp_path / "s"
    path.write_bytes(content)
    path.chmod(0o600)
    assert secret_from_file(str(path)).reveal() == text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "is not UTF-8 text"), (b"x" * 65_537, "is over 65536 bytes")],
)
def test_refuses_what_is_no_secret(tmp_path, content, message):
    path = tmp_path / "s"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretError, match=message) as caught:
        secret_from_file(str(path))
    assert not caught.value.absent


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
