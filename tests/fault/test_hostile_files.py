"""Files made to harm their reader: as settings and as rules they are refused within a second."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc

import pytest

from watchdog.config.settings import load_settings
from watchdog.errors import ConfigError
from watchdog.rules.language.load import load_rules

MAX_SECONDS = 1.0
RULE = b'[[rule]]\nid = "a"\nsummary = "a"\nmetric = "connects"\nstat = "rate"\nwindow = "10s"\n'

CONTENTS = {
    "100,000 nested arrays": b"a = " + b"[" * 100_000 + b"]" * 100_000,
    "100,000 nested tables": b"a = " + b"{a=" * 100_000 + b"1" + b"}" * 100_000,
    "a key of 20,000 parts": b".".join([b"a"] * 20_000) + b" = 1",
    "a table of 20,000 parts": b"[" + b".".join([b"a"] * 20_000) + b"]",
    "20,000 keys of 20 parts": b"\n".join(b"a%d.%b = 1" % (i, b".".join([b"b"] * 20)) for i in range(20_000)),
    "10,000 tables": b"\n".join(b"[a%d]" % i for i in range(10_000)),
    "an integer of 5,000 digits": b"a = " + b"1" * 5_000,
    "an integer of 900,000 digits": b"a = " + b"1" * 900_000,
    "a float of 900,000 digits": b"a = 0." + b"1" * 900_000,
    "nan": RULE + b"fire_above = nan",
    "inf": RULE + b"fire_above = inf",
    "minus inf for a limit": RULE + b"fire_above = -inf",
    "a float above the range of floats": RULE + b"fire_above = 1e999",
    "NUL": b"a = '\0'",
    "NUL in a key": b'"\\u0000" = 1',
    "NUL alone": b"\0" * 100_000,
    "marks of byte order": b"\xef\xbb\xbf" * 2 + b"a = 1",
    "UTF-16": "a = 1".encode("utf-16"),
    "no UTF-8": b"a = '\xff\xfe'",
    "50 MB": b"#" * 50_000_000,
    "50 MB of zeros": b"\0" * 50_000_000,
    "an unterminated string": b'a = "' + b"x" * 900_000,
    "900,000 quotes": b"a = " + b'"' * 900_000,
    "900,000 backslashes": b'a = "' + b"\\" * 900_000 + b'"',
    "a comment in front of nonsense": b"#" + b"x" * 900_000 + b"\r",
    "300,000 lines of nonsense": b"?\n" * 300_000,
    "terminal commands in a key": b'"\\u001b[2J\\u202e" = 1',
    "5,000 receivers": b"[[receiver]]\n" * 5_000,
    "2,000 rules": b"[[rule]]\n" * 2_000,
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize(
    "load", [load_settings, lambda path: load_rules([path], receivers=None)], ids=["settings", "rules"]
)
def test_a_hostile_file_is_refused_within_a_second_with_a_line_number(tmp_path, content, load):
    path = tmp_path / "hostile.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    began = time.thread_time()
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert time.thread_time() - began <= MAX_SECONDS
    for problem in caught.value.problems:
        assert problem.file == str(path)
        assert problem.line >= 1
        assert str(problem).isprintable()


def test_a_file_of_50_mb_is_not_read(tmp_path):
    path = tmp_path / "hostile.toml"
    path.write_bytes(CONTENTS["50 MB"])
    path.chmod(0o600)
    tracemalloc.start()
    with pytest.raises(ConfigError):
        load_settings(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_thousand_damaged_files_are_read_or_refused(tmp_path):
    randomness = random.Random(1)
    right = RULE + b'fire_above = { warning = 100, critical = "1k" }\nwhere = { process = ["a*", "!b"] }\n'
    path = tmp_path / "damaged.toml"
    for _ in range(1_000):
        damaged = bytearray(right)
        for _ in range(randomness.randint(1, 4)):
            start = randomness.randrange(len(damaged))
            damaged[start : start + randomness.randint(0, 3)] = randomness.randbytes(randomness.randint(0, 3))
        path.write_bytes(damaged)
        path.chmod(0o600)
        with contextlib.suppress(ConfigError):
            load_rules([str(path)], receivers=None)
