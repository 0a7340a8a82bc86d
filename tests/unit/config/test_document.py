import pytest
import tomli

from watchdog.config.document import Document
from watchdog.errors import ConfigError

SECOND = 1_000_000_000


def document(text, **options):
    return Document(text, tomli.loads(text), "f.toml", **options)


def problems_of(doc):
    return [str(problem) for problem in sorted(doc.problems)]


def test_reads_every_type():
    doc = document(
        'text = "x"\ntexts = ["a", "b"]\nnumber = 1.5\nwhole = 3\nflag = true\nlong = "1m30s"\n'
        "[table]\nkey = 1\n[[many]]\na = 1\n[[many]]\na = 2\n"
    )
    root = doc.root
    assert root.text("text", choices=("x", "y")) == "x"
    assert root.texts("texts") == ("a", "b")
    assert root.number("number") == 1.5
    assert root.number("whole") == 3.0
    assert root.integer("whole", minimum=3, maximum=3) == 3
    assert root.boolean("flag") is True
    assert root.duration("long") == 90 * SECOND
    assert root.table("table").integer("key") == 1
    assert [table.integer("a") for table in root.tables("many")] == [1, 2]
    root.reject_unknown_keys()
    assert problems_of(doc) == []
    doc.raise_problems()


def test_gives_defaults_for_missing_keys():
    root = document("").root
    assert root.text("a", "x") == "x"
    assert root.texts("a", ("x",)) == ("x",)
    assert root.number("a", 1.5) == 1.5
    assert root.integer("a", 2) == 2
    assert root.boolean("a", default=True) is True
    assert root.duration("a", "2s") == 2 * SECOND
    assert list(root.table("a")) == []
    assert root.tables("a") == ()
    assert problems_of(root.document) == []


@pytest.mark.parametrize("reader", ["text", "texts", "number", "integer", "boolean", "duration", "secret"])
def test_reports_a_missing_required_key_at_its_table(reader):
    doc = document("\n[[rule]]\n[[rule]]\nx = 1\n")
    getattr(doc.root.tables("rule")[1], reader)("key")
    (problem,) = doc.problems
    assert str(problem).startswith("f.toml:3: rule.key: missing")


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        ("text", "3", "must be a text, not a number"),
        ("text", '""', "must not be empty"),
        ("texts", '"a"', "must be an array of texts, not a text"),
        ("texts", '["a", ""]', "must be a text, not an empty text"),
        ("texts", '["a", 3]', "must be a text, not a number"),
        ("number", "true", "must be a number, not true or false"),
        ("number", "nan", "must be a finite number below 2^63"),
        ("number", "-inf", "must be a finite number below 2^63"),
        ("number", "9223372036854775808", "must be a finite number below 2^63"),
        ("integer", "1.0", "must be a whole number, not a number"),
        ("integer", "0x" + "f" * 5000, "must be a finite number below 2^63"),
        ("integer", "1979-05-27", "must be a whole number, not a date or time"),
        ("boolean", '"yes"', "must be true or false, not a text"),
        ("duration", "10", 'needs a unit: "10s"?'),
        ("duration", "true", 'must be a duration like "10s", not true or false'),
        ("duration", '"10"', 'not a duration: "10"; write it like "10s", "1m30s", "500ms", "4h"'),
        ("duration", '"400d"', "must be at most 366d, not 400d"),
        ("table", "[]", "must be a table, not an array"),
        ("tables", "{ a = 1 }", "must be tables: write [[key]]"),
        ("tables", "[1]", "must be tables: write [[key]]"),
        ("secret", "3", "must be a text, not a number"),
    ],
)
def test_reports_a_wrong_value_and_continues(reader, value, message):
    doc = document(f"\nkey = {value}\n")
    getattr(doc.root, reader)("key")
    assert problems_of(doc) == [f"f.toml:2: key: {message}"]


def test_reports_limits():
    doc = document('a = 5\nb = 2.5\nc = "1s"\nd = "warm"\n')
    doc.root.integer("a", maximum=4)
    doc.root.number("b", minimum=3)
    doc.root.duration("c", minimum="1500ms")
    doc.root.text("d", choices=("warn", "page"))
    assert problems_of(doc) == [
        "f.toml:1: a: must be at most 4, not 5",
        "f.toml:2: b: must be at least 3, not 2.5",
        "f.toml:3: c: must be at least 1500ms, not 1s",
        'f.toml:4: d: unknown value "warm": did you mean "warn"?',
    ]


def test_an_element_of_an_array_is_reported_on_its_own_line():
    doc = document('by = [\n "a",\n 3,\n "b",\n 4,\n]\n')
    assert doc.root.texts("by") == ("a", "b")
    assert problems_of(doc) == [
        "f.toml:3: by: must be a text, not a number",
        "f.toml:5: by: must be a text, not a number",
    ]


def test_one_key_is_reported_once():
    doc = document("id = 3\n")
    doc.root.text("id")
    doc.root.add_problem("id", "is already taken")
    doc.root.add_problem("id", "is odd", index=2)
    assert problems_of(doc) == ["f.toml:1: id: must be a text, not a number"]
    assert doc.root.has_problem("id")
    assert not doc.root.has_problem("other")


def test_keys_that_are_not_read_are_unknown_and_the_closest_known_one_is_suggested():
    doc = document('[rule]\nsumary = "x"\nzzz = 1\n"a b" = 2\n')
    rule = doc.root.table("rule")
    rule.text("summary", "")
    rule.text("id", "")
    rule.reject_unknown_keys()
    assert problems_of(doc) == [
        'f.toml:2: rule.sumary: unknown key "sumary": did you mean "summary"?',
        'f.toml:3: rule.zzz: unknown key "zzz": known are id, summary',
        'f.toml:4: rule."a b": unknown key "a b": known are id, summary',
    ]


def test_raises_all_problems_in_line_order_and_keeps_notes_apart():
    doc = document("a = 1\nb = 2\n")
    doc.root.add_problem("b", "second")
    doc.root.add_problem("a", "first")
    doc.root.add_note("a", "by the way")
    with pytest.raises(ConfigError) as caught:
        doc.raise_problems()
    assert str(caught.value) == "f.toml:1: a: first\nf.toml:2: b: second"
    assert [str(note) for note in doc.notes] == ["f.toml:1: a: by the way"]


def test_hostile_text_is_escaped_in_problems():
    doc = document('mode = "\\u001b[2Jx\\n\\u202e"\n')
    doc.root.text("mode", choices=("a",))
    assert problems_of(doc) == ['f.toml:1: mode: unknown value "\\u001b[2Jx\\u000a\\u202e": known are a']


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("hunter2\n")
    path.chmod(0o600)
    return path


def test_reads_a_secret_from_the_file_itself_a_file_the_environment_or_a_credential(secret_file, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "from-env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret_file.parent))
    text = f'a = "inline"\nb_file = "{secret_file}"\nc_env = "HOOK_SECRET"\nd_credential = "secret"\n'
    root = document(text).root
    secrets = [root.secret("a"), root.secret("b"), root.secret("c"), root.secret("d"), root.secret("e", required=False)]
    assert [secret and secret.reveal() for secret in secrets] == ["inline", "hunter2", "from-env", "hunter2", None]
    root.reject_unknown_keys()
    assert problems_of(root.document) == []


def test_refuses_two_forms_of_one_secret(secret_file):
    doc = document(f'key = "x"\nkey_file = "{secret_file}"\n')
    assert doc.root.secret("key") is None
    assert problems_of(doc) == ["f.toml:2: key_file: give only one of key, key_file"]


NO_CREDENTIALS = "no credentials available, $CREDENTIALS_DIRECTORY is not set"


def test_a_missing_secret_is_a_problem_for_the_daemon_and_a_note_for_a_check(tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    text = f'\na_file = "{tmp_path}/none"\nb_env = "NOT_SET"\nc_credential = "c"\n'
    expected = [
        f"f.toml:2: a_file: {{}}cannot read '{tmp_path}/none': No such file or directory",
        "f.toml:3: b_env: {}environment variable 'NOT_SET' is not set",
        f"f.toml:4: c_credential: {{}}{NO_CREDENTIALS}: add LoadCredential=c:/path to the unit",
    ]
    for needed, prefix in ((True, ""), (False, "not checked: ")):
        doc = document(text, require_secrets=needed)
        assert doc.root.secret("a") is None
        assert doc.root.secret("b") is None
        assert doc.root.secret("c") is None
        told_lines = [str(problem) for problem in (doc.problems if needed else doc.notes)]
        assert told_lines == [line.format(prefix) for line in expected]
        assert not (doc.notes if needed else doc.problems)


def test_refuses_a_secret_that_everyone_can_read_in_a_check_too(secret_file):
    secret_file.chmod(0o644)
    doc = document(f'key_file = "{secret_file}"\n', require_secrets=False)
    assert doc.root.secret("key") is None
    assert problems_of(doc) == [
        f"f.toml:1: key_file: '{secret_file}' is open to everyone on this host: {remedy(secret_file)}"
    ]


def remedy(file):
    return f"chown bpf-watchdog {file} && chmod 600 {file}"


def exposed(text, **options):
    """Return a document in a file that others can read."""
    return Document(text, tomli.loads(text), "f.toml", other_readers="everyone on this host", **options)


EXPOSED = "is written in a file that is open to everyone on this host: "


def test_a_secret_in_a_file_that_others_can_read_is_a_problem_and_a_note_in_check():
    message = f"f.toml:1: key: {EXPOSED}use key_file instead, or {remedy('f.toml')}"
    doc = exposed('key = "hunter2"\n')
    assert doc.root.secret("key") is None
    assert problems_of(doc) == [message]
    doc = exposed('key = "hunter2"\n', require_secrets=False)
    assert doc.root.secret("key").reveal() == "hunter2"
    assert (problems_of(doc), [str(note) for note in doc.notes]) == ([], [message])


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("http://127.0.0.1:9000", "taken"),
        ("HTTPS://hooks.example.net/", "taken"),
        ("https://hooks.example.net/T0/B0", "noted"),
        ("https://hooks.example.net?token=hunter2", "noted"),
        ("https://hooks.example.net/in?at=@home", "noted"),
        ("https://me:hunter2@hooks.example.net/", "refused"),
        ("https://hunter2@hooks.example.net", "refused"),
    ],
)
def test_of_urls_in_a_file_which_others_can_read_only_those_with_a_login_are_refused(url, verdict):
    doc = exposed(f'url = "{url}"\n')
    secret = doc.root.secret("url", is_url=True)
    assert (secret is None, bool(doc.problems), bool(doc.notes)) == {
        "taken": (False, False, False),
        "noted": (False, False, True),
        "refused": (True, True, False),
    }[verdict]
    assert "hunter2" not in "".join(map(str, doc.problems + doc.notes))
