from __future__ import annotations

import json
import signal
import tomllib

import pytest

from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.errors import ConfigError
from watchdog.receivers import command
from watchdog.receivers.command import Command
from watchdog.receivers.registry import build_receivers
from watchdog.receivers.transport.child_process import ProcessResult


def document_of(words, **options):
    text = f'[[receiver]]\nname = "script"\ntype = "command"\ncommand = {json.dumps(words)}\n'
    return Document(text, tomllib.loads(text), "watchdog.toml", **options)


def problems_of(words):
    with pytest.raises(ConfigError) as caught:
        build_receivers(read_settings(document_of(words)))
    return [str(problem).removeprefix("watchdog.toml:4: receiver.command: ") for problem in caught.value.problems]


def test_the_destination_has_no_arguments():
    receivers = build_receivers(read_settings(document_of(["/bin/true", "--token=secret"])))
    assert receivers["script"].destination() == "command /bin/true"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "must contain the path of a program"),
        (["true"], "must be an absolute path, not 'true'"),
        (["/nonexistent/script"], "cannot run '/nonexistent/script': No such file or directory"),
        (["/etc"], "'/etc' is not an executable file"),
        (["/etc/passwd"], "'/etc/passwd' is not an executable file"),
        (["/bin/true", "a\0b"], "must not contain NUL characters"),
        (["/bin/true", ""], "must be a text, not an empty text"),
    ],
)
def test_a_program_that_cannot_run_is_reported(words, problem):
    assert problems_of(words) == [problem]


def test_a_program_writable_by_every_user_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o757)
    reason = "writable by everyone on this host (mode 0757): chmod o-w"
    assert problems_of([str(script)]) == [f"'{script}': {reason} {script}"]
    script.chmod(0o755)
    tmp_path.chmod(0o757)
    assert problems_of([str(script)]) == [f"'{tmp_path}': {reason} {tmp_path}"]


def test_check_reports_a_missing_program_as_a_note():
    document = document_of(["/nonexistent/script"], require_secrets=False)
    build_receivers(read_settings(document))
    assert [note.message for note in document.notes] == ["cannot run '/nonexistent/script': No such file or directory"]


@pytest.fixture
def script(tmp_path):
    """Return a script that every user can write to, in a folder of root."""
    tmp_path.chmod(0o755)
    script = tmp_path / "script"
    script.write_text("")
    script.chmod(0o757)
    return script


@pytest.mark.parametrize(
    "words",
    [
        ["/bin/sh", "{}"],
        ["/usr/bin/env", "A=1", "{}"],
        ["/bin/sh", "-c", "exec '{}' --urgent"],
        ["/bin/sh", "-c", "true;{}|cat"],
        ["/bin/sh", "--rcfile={}"],
    ],
)
def test_a_script_that_every_user_can_write_to_is_refused_as_an_argument(script, words):
    reason = "writable by everyone on this host (mode 0757): chmod o-w"
    assert problems_of([word.format(script) for word in words]) == [f"'{script}': {reason} {script}"]


def test_an_interpreter_that_every_user_can_write_to_is_refused(script, tmp_path):
    program = tmp_path / "program"
    program.write_text(f"#! {script} -x\n")
    program.chmod(0o755)
    reason = "writable by everyone on this host (mode 0757): chmod o-w"
    for words in ([str(program)], ["/bin/true", str(program)]):
        assert problems_of(words) == [f"'{script}': {reason} {script}"]


def test_arguments_that_are_no_files_of_others_are_accepted(tmp_path):
    words = ["/bin/sh", "-c", "cat >/dev/null; a/b", str(tmp_path), "/nonexistent", "https://[::1/x"]
    assert list(build_receivers(read_settings(document_of(words)))) == ["script"]


def test_the_input_is_the_document_of_the_webhook(make_notification):
    document = json.loads(Command("script", ("/bin/true",)).render(make_notification()))
    assert (document["version"], document["status"], len(document["alerts"])) == ("4", "firing", 1)


def test_the_environment_has_the_facts_for_scripts(make_notification):
    assert command._environment(make_notification()) == {
        "WATCHDOG_STATUS": "firing",
        "WATCHDOG_SEVERITY": "critical",
        "WATCHDOG_GROUP_KEY": "outbound-connection-storm",
        "WATCHDOG_HOST": "web-1",
        "WATCHDOG_NOTIFICATION_REASON": "first notification",
        "WATCHDOG_TITLE": "[FIRING] critical: crawler opens 612/s connections (limit 500/s) on web-1",
        "WATCHDOG_NOTIFICATION_ID": "5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70",
        "WATCHDOG_RECEIVER": "oncall",
        "WATCHDOG_TEST": "false",
    }


def test_variables_with_hostile_names_are_one_line_and_bounded(hostile_notification):
    for value in command._environment(hostile_notification).values():
        assert value.isprintable()
        assert len(value) <= 1_024
    json.loads(Command("script", ("/bin/true",)).render(hostile_notification))


@pytest.mark.parametrize(
    ("code", "output", "text"),
    [
        (1, b"", "ended with code 1"),
        (75, b"trying\nno route to host\n\n", "ended with code 75: no route to host"),
        (2, b"\x1b[2J\xff" + b"x" * 5_000, "ended with code 2: \\x1b[2J\\xff" + "x" * 188 + "…"),
        (-signal.SIGSEGV, b"", "was killed by SIGSEGV"),
        (
            7,
            b"no route to https://me:pw@chat.example.net/x",
            "ended with code 7: no route to https://***@chat.example.net/x",
        ),
        (
            22,
            b"POST https://hooks.slack.com/services/T0/B0/x: 404",
            "ended with code 22: POST https://hooks.slack.com/*** 404",
        ),
        (1, b"401 for token=s3cr3t", "ended with code 1: 401 for token=***"),
        (
            1,
            b"+ curl -H 'Authorization: Bearer abcdefgh12345'",
            "ended with code 1: + curl -H 'Authorization: *** ***'",
        ),
        (-40, b"", "was killed by signal 40"),
    ],
)
def test_an_error_has_the_exit_and_the_last_line_of_output(code, output, text):
    assert command._describe_failure(ProcessResult(code, output)) == text
