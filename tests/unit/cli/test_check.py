import argparse
import json
import re
import subprocess
import sys

import pytest

from watchdog.cli import check, check_files
from watchdog.errors import UsageError
from watchdog.kernel.fexit_support import connect_errors_warning
from watchdog.rules.language import template

RULE = """\
[[rule]]
id = "r"
summary = "s"
metric = "connects"
stat = "rate"
window = "10s"
fire_above = 1
"""
CONFIG = '[[receiver]]\nname = "oncall"\ntype = "console"\n'


@pytest.fixture
def write(tmp_path):
    def write(text, name="rules.toml"):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


@pytest.fixture
def bpf_watchdog(capsys):
    """Run the command; return its exit code, its output lines, and its last error line."""

    def run(*arguments):
        parser = argparse.ArgumentParser()
        check.register(parser.add_subparsers())
        args = parser.parse_args([str(argument) for argument in arguments])
        code = args.run(args)
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.strip()

    return run


def test_says_so_when_all_is_well(bpf_watchdog, write):
    assert bpf_watchdog("check", write(RULE)) == (0, [], "1 file, 1 rule: no problems, no notes")


def test_prints_each_problem_and_note_in_the_order_of_files_and_lines(bpf_watchdog, write):
    second = write(RULE.replace('"10s"', '"10"') + 'receivers = ["oncall"]\n', "b.toml")
    first = write(RULE.replace("fire_above", "fire_abov").replace('"r"', '"q"'), "a.toml")
    assert bpf_watchdog("check", second, first) == (
        1,
        [
            f"{first}:1: rule.fire_above: missing: give fire_above, fire_below, [rule.baseline] or [rule.novelty]",
            f'{first}:7: rule.fire_abov: unknown key "fire_abov": did you mean "fire_above"?',
            f'{second}:6: rule.window: not a duration: "10"; write it like "10s", "1m30s", "500ms", "4h"',
            f'{second}:8: rule.receivers: note: not checked: "oncall" is defined in another file',
        ],
        "2 files, 2 rules: 3 problems, 1 note",
    )


def test_checks_a_fragment_under_any_name(bpf_watchdog, write):
    path = write(RULE, ".ansible_tmp1234-x")
    assert bpf_watchdog("check", path)[0] == 0


def test_recognizes_settings_and_rules_by_their_content(bpf_watchdog, write):
    path = write('[sampling]\ninterval = "1"\n', "x")
    assert bpf_watchdog("check", path) == (
        1,
        [f'{path}:2: sampling.interval: not a duration: "1"; write it like "10s", "1m30s", "500ms", "4h"'],
        "1 file, no rules: 1 problem, no notes",
    )


def test_a_file_with_neither_is_reported(bpf_watchdog, write):
    empty, other = write("", "a.toml"), write("[[rules]]\n", "b.toml")
    assert bpf_watchdog("check", empty, other) == (
        1,
        [
            f"{empty}:1: file: note: contains neither rules nor settings",
            f'{other}:1: rules: unknown key "rules": did you mean "rule"?',
        ],
        "2 files, no rules: 1 problem, 1 note",
    )


def test_checks_receivers_and_windows_against_settings_that_are_given(bpf_watchdog, write):
    config = write(CONFIG + '[sampling]\ninterval = "6s"\n', "watchdog.toml")
    rules = write(RULE + 'receivers = ["oncal"]\n')
    code, lines, _ = bpf_watchdog("check", "--config", config, rules)
    assert (code, lines) == (
        1,
        [
            f"{rules}:6: rule.window: must hold two samples, so at least 12s with a sampling interval of 6s",
            f'{rules}:8: rule.receivers: unknown receiver "oncal": did you mean "oncall"?',
        ],
    )


def test_checks_routes_and_rate_limits_and_reports_routes_that_match_no_rule(bpf_watchdog, write):
    config = write(CONFIG + '[[route]]\nwhere = { rule = "q*" }\nreceivers = ["oncal"]\n', "w.toml")
    assert bpf_watchdog("check", config, write(RULE))[:2] == (
        1,
        [
            f"{config}:4: route: note: no alert can reach this route: it matches no rule",
            f'{config}:6: route.receivers: unknown receiver "oncal": did you mean "oncall"?',
        ],
    )
    config = write(f'{CONFIG}rate_limit = "30"\n', "w.toml")
    [problem] = bpf_watchdog("check", config)[1]
    assert "w.toml:4: receiver.rate_limit: must be a number of notifications per time" in problem
    alone = write('[[route]]\nreceivers = ["console"]\n', "w.toml")
    assert bpf_watchdog("check", alone)[0] == 0


def test_checks_the_receivers_own_keys(bpf_watchdog, write):
    config = write(CONFIG + 'colour = "red"\n[routing]\ndefault = ["onkall"]\n', "watchdog.toml")
    code, lines, _ = bpf_watchdog("check", config)
    assert code == 1
    assert [line.removeprefix(f"{config}:").split(": ")[:2] for line in lines] == [
        ["4", "receiver.colour"],
        ["6", "routing.default"],
    ]


def test_checks_the_heartbeat(bpf_watchdog, write):
    path = write('[heartbeat]\nurl = "http://127.0.0.1:1/"\nintervall = "1m"\n', "c.toml")
    assert bpf_watchdog("check", path)[:2] == (
        1,
        [f'{path}:3: heartbeat.intervall: unknown key "intervall": did you mean "interval"?'],
    )


def test_a_secret_that_is_not_here_is_a_note(bpf_watchdog, write, tmp_path):
    config = write(f'[[receiver]]\nname = "hook"\ntype = "webhook"\nurl_file = "{tmp_path}/none"\n')
    code, lines, _ = bpf_watchdog("check", config)
    assert code == 0
    assert lines == [
        f"{config}:4: receiver.url_file: note: not checked: cannot read '{tmp_path}/none': No such file or directory"
    ]


@pytest.mark.parametrize(
    ("receiver", "key"),
    [
        ('type = "alertmanager"\nurls_file = "{}"\n', "urls_file"),
        (
            'type = "email"\nhost = "a.b"\nfrom = "a@b.c"\nto = ["a@b.c"]\nusername = "a"\npassword_file = "{}"\n',
            "password_file",
        ),
    ],
)
def test_a_secret_that_is_not_here_makes_no_problem_of_its_receiver(bpf_watchdog, write, tmp_path, receiver, key):
    config = write('[[receiver]]\nname = "a"\n' + receiver.replace("{}", f"{tmp_path}/none"))
    code, lines, _ = bpf_watchdog("check", config)
    assert code == 0
    assert [line.split(": ")[1:4] for line in lines] == [[f"receiver.{key}", "note", "not checked"]]


def test_unreadable_files_and_folders_are_reported_with_all_other_problems(bpf_watchdog, write, tmp_path, monkeypatch):
    broken, good = write("[[rule]\n", "a.toml"), write(RULE.replace("10s", "1s"), "b.toml")
    (tmp_path / "closed").mkdir()

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)  # the file system itself refuses root nothing
    code, lines, _ = bpf_watchdog("check", tmp_path / "closed", good, broken)
    assert code == 1
    assert [line.removeprefix(f"{tmp_path}/").split(": ")[:2] for line in lines] == [
        ["a.toml:1", "file"],
        ["b.toml:6", "rule.window"],
        ["closed:1", "file"],
    ]


def test_finds_the_same_id_in_two_files_of_a_folder(bpf_watchdog, write, tmp_path):
    first, second = write(RULE, "a.toml"), write(RULE, "b.toml")
    assert bpf_watchdog("check", tmp_path)[1] == [
        f'{second}:2: rule.id: duplicate rule id "r": already used at {first}:1'
    ]


def test_checks_a_file_once_even_if_it_is_named_twice(bpf_watchdog, write, tmp_path):
    assert bpf_watchdog("check", write(RULE), tmp_path) == (0, [], "1 file, 1 rule: no problems, no notes")


def test_prints_json_for_programs(bpf_watchdog, write):
    path = write(RULE.replace("10s", "1s") + 'receivers = ["oncall"]\n')
    code, lines, _ = bpf_watchdog("check", "--json", path)
    assert code == 1
    assert json.loads("\n".join(lines)) == {
        "files": 1,
        "rules": 1,
        "problems": [
            {
                "file": str(path),
                "line": 6,
                "key": "rule.window",
                "message": "must hold two samples, so at least 2s with a sampling interval of 1s",
            }
        ],
        "notes": [
            {
                "file": str(path),
                "line": 8,
                "key": "rule.receivers",
                "message": 'not checked: "oncall" is defined in another file',
            }
        ],
    }


@pytest.mark.parametrize("arguments", [["{}/none"], ["--config", "{}/none"]])
def test_a_path_that_does_not_exist_is_an_error_of_usage(bpf_watchdog, tmp_path, arguments):
    with pytest.raises(UsageError, match=f"no such file or folder: {tmp_path}/none"):
        bpf_watchdog("check", *[argument.format(tmp_path) for argument in arguments])


@pytest.mark.parametrize(
    ("failure", "is_unsent"),
    [("no_route", True), ("no_*", True), ("denied", True), ("refused", False), ("!denied", False)],
)
def test_notes_rules_on_failures_before_the_first_packet_where_they_are_not_counted(
    bpf_watchdog, write, failure, is_unsent
):
    warning = connect_errors_warning()
    file = write(RULE.replace('"connects"', '"connect_failures"') + f'where = {{ failure = "{failure}" }}\n')
    noted = [f"{file}:1: where.failure: note: {warning}"] if warning and is_unsent else []
    assert bpf_watchdog("check", file)[:2] == (0, noted)


def test_without_paths_checks_the_hosts_own_files(bpf_watchdog, write, tmp_path, monkeypatch):
    config = write(CONFIG, "watchdog.toml")
    (tmp_path / "rules.d").mkdir()
    write(RULE, "rules.d/r.toml")
    monkeypatch.setattr(check_files, "DEFAULT_SETTINGS_FILE", str(config))
    monkeypatch.setattr(check_files, "DEFAULT_RULES_FOLDER", str(tmp_path / "rules.d"))
    assert bpf_watchdog("check")[2] == "2 files, 1 rule: no problems, no notes"


def test_without_paths_and_files_checks_the_shipped_rules(bpf_watchdog, tmp_path, monkeypatch):
    monkeypatch.setattr(check_files, "DEFAULT_SETTINGS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(check_files, "DEFAULT_RULES_FOLDER", str(tmp_path / "none.d"))
    code, lines, counted = bpf_watchdog("check")
    assert (code, lines) == (0, [])
    assert re.fullmatch(r"\d+ files, \d+ rules: no problems, no notes", counted)


def test_checking_rules_imports_none_of_the_daemons_large_modules(write):
    code = (
        "import sys, argparse; from watchdog.cli import check\n"
        "parser = argparse.ArgumentParser(); check.register(parser.add_subparsers())\n"
        "check.run(parser.parse_args(['check', sys.argv[1]]))\n"
        "print(sorted({'numpy', 'bcc', 'requests', 'apscheduler', 'sqlite3'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(write(RULE))], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "[]\n"


def test_a_folder_without_files_is_a_problem(bpf_watchdog, tmp_path):
    assert bpf_watchdog("check", tmp_path) == (
        1,
        [f"{tmp_path}:1: file: no *.toml files here: nothing to check"],
        "no files, no rules: 1 problem, no notes",
    )


def test_a_summary_that_could_not_be_written_at_night_is_a_problem_now(bpf_watchdog, write, monkeypatch):
    def fail(*_):
        raise KeyError("unit")

    monkeypatch.setattr(template, "render_template", fail)
    file = write(RULE)
    assert bpf_watchdog("check", file) == (
        1,
        [f"{file}:1: rule.summary: cannot be formatted: KeyError: 'unit'"],
        "1 file, 1 rule: 1 problem, no notes",
    )


@pytest.fixture
def host(tmp_path):
    """Write watchdog.toml with the receiver `oncall` and rules.d/a.toml with the rule `r`; return their folder."""
    (tmp_path / "etc" / "rules.d").mkdir(parents=True)
    (tmp_path / "etc" / "watchdog.toml").write_text(CONFIG)
    (tmp_path / "etc" / "rules.d" / "a.toml").write_text(RULE)
    return tmp_path / "etc"


def of_the_set(host):
    return "--rules", host / "rules.d", "--config", host / "watchdog.toml"


def test_a_candidate_is_judged_among_the_files_of_the_daemon(bpf_watchdog, write, host):
    wrong = write(RULE.replace('"r"', '"q"') + 'receivers = ["oncal"]\n', "candidate.toml")
    assert bpf_watchdog("check", *of_the_set(host), wrong) == (
        1,
        [f'{wrong}:8: rule.receivers: unknown receiver "oncal": did you mean "oncall"?'],
        "3 files, 2 rules: 1 problem, no notes",
    )
    right = write(RULE.replace('"r"', '"q"') + 'receivers = ["oncall"]\n', "candidate.toml")
    assert bpf_watchdog("check", *of_the_set(host), right)[:2] == (0, [])


def test_a_candidate_takes_the_place_of_the_file_of_its_name(bpf_watchdog, write, host):
    same = write(RULE.replace('"10s"', '"20s"'), "a.toml")
    assert bpf_watchdog("check", *of_the_set(host), same) == (0, [], "2 files, 1 rule: no problems, no notes")
    copy = write(RULE.replace('"10s"', '"20s"'), ".ansible_tmp1234-source")
    code, lines, _ = bpf_watchdog("check", *of_the_set(host), copy)
    assert (code, [line.partition(": rule.id: ")[2] for line in lines]) == (
        1,
        [f'duplicate rule id "r": already used at {copy}:1'],
    )
    assert bpf_watchdog("check", *of_the_set(host), "--as", "a.toml", copy)[:2] == (0, [])


def test_what_is_wrong_in_the_company_of_the_candidate_only_is_reported(bpf_watchdog, write, host):
    (host / "rules.d" / "b.toml").write_text(RULE.replace('"r"', '"q"'))
    candidate = write(RULE.replace('"r"', '"q"'), "c.toml")
    code, [line], _ = bpf_watchdog("check", *of_the_set(host), candidate)
    assert (code, line) == (
        1,
        f'{candidate}:2: rule.id: duplicate rule id "q": already used at {host}/rules.d/b.toml:1',
    )


def test_settings_are_a_candidate_too(bpf_watchdog, write, host):
    (host / "rules.d" / "a.toml").write_text(RULE + 'receivers = ["oncall"]\n')
    candidate = write(CONFIG.replace("oncall", "other"), "new.toml")
    code, [line], _ = bpf_watchdog("check", *of_the_set(host), candidate)
    assert (code, line) == (
        1,
        f'{host}/rules.d/a.toml:8: rule.receivers: unknown receiver "oncall": known are other',
    )


def test_a_file_is_judged_where_it_stands_with_its_neighbours(bpf_watchdog, host):
    file = host / "rules.d" / "b.toml"
    file.write_text(RULE + 'receivers = ["oncal"]\n')
    for path in (file, host / "rules.d"):
        code, lines, counted = bpf_watchdog("check", path)
        assert (code, counted) == (1, "3 files, 2 rules: 2 problems, no notes")
        assert [line.removeprefix(f"{file}:") for line in lines] == [
            f'2: rule.id: duplicate rule id "r": already used at {host}/rules.d/a.toml:1',
            '8: rule.receivers: unknown receiver "oncal": did you mean "oncall"?',
        ]


def test_the_temporary_copy_of_a_candidate_can_be_beside_the_file(bpf_watchdog, host):
    copy = host / "rules.d" / "a.toml20261129-1-x"  # Puppet writes it there
    copy.write_text(RULE)
    assert bpf_watchdog("check", *of_the_set(host), "--as", "a.toml", copy)[:2] == (0, [])


@pytest.fixture
def hosts(tmp_path):
    """Write the files of two hosts, as a repository holds them: equal names and ids, other receivers."""
    for name in ("web", "db"):
        (tmp_path / name / "rules.d").mkdir(parents=True)
        (tmp_path / name / "watchdog.toml").write_text(CONFIG.replace("oncall", f"{name}-team"))
        (tmp_path / name / "rules.d" / "a.toml").write_text(RULE + f'receivers = ["{name}-team"]\n')
    return tmp_path


def test_the_files_of_each_host_are_a_set_of_their_own(bpf_watchdog, hosts):
    rules = [hosts / name / "rules.d" / "a.toml" for name in ("web", "db")]
    settings = [hosts / name / "watchdog.toml" for name in ("web", "db")]
    for paths in (rules, [*rules, *settings], [file.parent for file in rules], settings):
        assert bpf_watchdog("check", *paths) == (0, [], "4 files, 2 rules: no problems, no notes")
    for broken in rules:
        text = broken.read_text()
        broken.write_text(text.replace("fire_above", "fire_abov"))
        code, lines, _ = bpf_watchdog("check", *rules, *settings)
        assert (code, {line.split(":")[0] for line in lines}) == (1, {str(broken)})
        broken.write_text(text)


def test_a_problem_of_a_file_that_hosts_share_is_reported_once(bpf_watchdog, write, hosts):
    shared = write(CONFIG + "[sampling]\nintervall = '1s'\n", "shared.toml")
    rules = [hosts / name / "rules.d" for name in ("web", "db")]
    for folder in rules:
        (folder / "a.toml").write_text(RULE)
    code, lines, counts = bpf_watchdog("check", "--config", shared, *rules)
    assert (code, len(lines)) == (1, 1), lines
    assert counts == "3 files, 2 rules: 1 problem, no notes"


def test_settings_are_judged_with_the_rules_beside_them(bpf_watchdog, host):
    (host / "rules.d" / "a.toml").write_text(RULE + 'receivers = ["oncall"]\n')
    (host / "watchdog.toml").write_text(CONFIG.replace("oncall", "night"))
    assert bpf_watchdog("check", host / "watchdog.toml")[:2] == (
        1,
        [f'{host}/rules.d/a.toml:8: rule.receivers: unknown receiver "oncall": known are night'],
    )


def test_the_folder_of_the_rules_is_recognized_from_inside(bpf_watchdog, host, monkeypatch):
    (host / "rules.d" / "b.toml").write_text(RULE.replace('"r"', '"q"') + 'receivers = ["oncal"]\n')
    monkeypatch.chdir(host / "rules.d")
    for path in (".", "b.toml"):
        code, [line], _ = bpf_watchdog("check", path)
        assert (code, line) == (1, 'b.toml:8: rule.receivers: unknown receiver "oncal": did you mean "oncall"?')


def test_a_set_without_any_rule_is_a_problem_because_the_daemon_would_not_start(bpf_watchdog, host):
    (host / "rules.d" / "a.toml").unlink()
    assert bpf_watchdog("check", *of_the_set(host))[:2] == (
        1,
        [f"{host}/rules.d:1: rule: no rules found: no alert could ever fire"],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "{}/none"], "no such file or folder: {}/none"),
        (["--as", "a.toml"], "--as names one file"),
        (["--as", "a.toml", "{}/rules.d"], "--as names one file"),
        (["--as", "a.toml", "{}/rules.d/a.toml", "{}/watchdog.toml"], "--as names one file"),
        (["--as", "a", "{}/rules.d/a.toml"], "--as: must be the name of a file that ends in .toml"),
        (["--as", "x/a.toml", "{}/rules.d/a.toml"], "--as: must be the name of a file that ends in .toml"),
    ],
)
def test_a_wrong_set_is_an_error_of_usage(bpf_watchdog, host, arguments, message):
    with pytest.raises(UsageError, match=message.format(host)):
        bpf_watchdog("check", *[argument.format(host) for argument in arguments])


def test_the_set_is_judged_with_the_shipped_rules_beside_it(bpf_watchdog, host):
    (host / "rules.d" / "b.toml").write_text('[[override]]\nid = "byte-storm"\nenabled = false\n')
    assert bpf_watchdog("check", *of_the_set(host))[0] == 1
    (host / "rules.d" / "b.toml").write_text('[[override]]\nid = "bytes-sent-spike"\nenabled = false\n')
    code, [line], _ = bpf_watchdog("check", *of_the_set(host))
    assert (code, "set shipped = true in [rules] of watchdog.toml" in line) == (1, True)
    (host / "watchdog.toml").write_text(f"{CONFIG}[rules]\nshipped = true\n")
    assert bpf_watchdog("check", *of_the_set(host))[:2] == (0, [])
    route = '[[route]]\nwhere = { rule = "bytes-received-spike" }\nreceivers = ["oncall"]\n'
    (host / "watchdog.toml").write_text(f"{CONFIG}{route}[rules]\nshipped = true\n")
    assert bpf_watchdog("check", *of_the_set(host))[:2] == (0, [])


def test_exceptions_that_have_ended_are_noted(bpf_watchdog, write):
    ended = '[[rule.except]]\nwhere = { process = "x" }\nowner = "ada"\nreason = "move"\nuntil = 2020-01-31\n'
    code, out, _ = bpf_watchdog("check", write(RULE + ended))
    assert code == 0
    assert "rule.except.until: note: the exception of r ended on 2020-01-31" in out[0]


def test_a_list_of_another_file_is_a_note_for_a_fragment_and_a_problem_for_a_folder(bpf_watchdog, write, tmp_path):
    folder = tmp_path / "rules.d"
    folder.mkdir()
    text = RULE + 'where = { remote = "@internal" }\n'
    code, out, _ = bpf_watchdog("check", write(text))
    assert code == 0
    assert 'rule.where.remote: note: not checked: the list "internal" is in another file' in out[0]
    code, out, _ = bpf_watchdog("check", write('[lists]\ninternals = ["10.0.0.0/8"]\n' + text))
    assert code == 0
    assert 'is in another file; unknown list "internal": did you mean "internals"?' in out[0]
    out = bpf_watchdog("check", write("[lists]\nports = [80]\n" + text))[1]
    assert out[0].endswith('the list "internal" is in another file')
    (folder / "a.toml").write_text(text)
    code, out, _ = bpf_watchdog("check", "--rules", folder)
    assert code == 1
    assert 'unknown list "internal"' in out[0]
    (folder / "lists.toml").write_text('[lists]\ninternal = ["10.0.0.0/8"]\n')
    assert bpf_watchdog("check", "--rules", folder)[0] == 0


def test_a_rule_that_is_disabled_can_be_inhibited_and_an_unknown_one_cannot(bpf_watchdog, tmp_path):
    folder = tmp_path / "rules.d"
    folder.mkdir()
    disabled = '[[override]]\nid = "outbound-connection-storm"\nenabled = false\n'
    (folder / "a.toml").write_text(RULE + 'inhibits = ["outbound-connection-storm"]\n' + disabled)
    (tmp_path / "watchdog.toml").write_text("[rules]\nshipped = true\n")
    arguments = ("check", "--rules", folder, "--config", tmp_path / "watchdog.toml")
    assert bpf_watchdog(*arguments)[0] == 0
    (folder / "a.toml").write_text(RULE + 'inhibits = ["outbound-connection-strom"]\n')
    code, out, _ = bpf_watchdog(*arguments)
    assert code == 1
    assert 'did you mean "outbound-connection-storm"' in out[0]


def test_a_candidate_whose_baseline_would_start_anew_is_noted(write, bpf_watchdog, tmp_path):
    def rule(floor, rarity):
        return RULE.replace("fire_above = 1", f'[rule.baseline]\nfloor = {floor}\nrarity = "{rarity}"')

    folder = tmp_path / "rules.d"
    folder.mkdir()
    write(rule(5, "30d"), "rules.d/busy.toml")
    for floor, rarity, starts_anew in ((5, "90d", False), (6, "30d", True)):
        candidate = write(rule(floor, rarity), "new.toml")
        code, lines, _ = bpf_watchdog("check", "--rules", folder, "--as", "busy.toml", candidate)
        assert code == 0
        assert any("rule.baseline: note: learning starts anew: metric" in line for line in lines) is starts_anew
